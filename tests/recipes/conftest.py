from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from tests.recipes.tones import recipe
from tests.training.conftest import one_thread

__all__ = ["finished", "one_thread"]


def _run(workdir: Path) -> str:
    said = io.StringIO()
    threads = torch.get_num_threads()
    recipe(workdir, stream=said).run()
    torch.set_num_threads(threads)
    return said.getvalue()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The working folder of a whole run, and what it said. All processes of the tests share one; none writes to it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        workdir = tmp_path_factory.mktemp("tones")
        return workdir, _run(workdir)
    shared = tmp_path_factory.getbasetemp().parent / "tones"
    said = shared / "said"
    with FileLock(f"{shared}.lock"):
        if not said.exists():
            workdir = shared / "run"
            workdir.mkdir(parents=True)
            said.write_text(_run(workdir), "utf-8")
    return shared / "run", said.read_text("utf-8")
