"""A toy service on a unix socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from seqtrain.aligner import AlignerClient
from sprint_bridge.server import AlignerServer
from tests.bridge.toy import serve


@pytest.fixture
def address(tmp_path: Path) -> str:
    """Where a test's service listens."""
    return f"unix:{tmp_path}/a.sock"


@pytest.fixture
def server(address: str) -> Iterator[AlignerServer]:
    """A service that is ready."""
    server = serve(address)
    yield server
    server.stop()


@pytest.fixture
def client(server: AlignerServer) -> Iterator[AlignerClient]:
    """A client of `server`."""
    with AlignerClient(server.target, timeout=10.0) as client:
        yield client
