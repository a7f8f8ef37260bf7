from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from tests.recipes.tones import recipe
from tests.training.conftest import one_thread

__all__ = ["finished", "one_thread"]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The working folder of a whole run, and what it said."""
    workdir = tmp_path_factory.mktemp("tones")
    said = io.StringIO()
    threads = torch.get_num_threads()
    recipe(workdir, stream=said).run()
    torch.set_num_threads(threads)
    return workdir, said.getvalue()
