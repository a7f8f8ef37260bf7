"""Tests that need a GPU: without one they are deselected, and the summary says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

_HERE = Path(__file__).parent
_DESELECTED = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = [item for item in items if _HERE in item.path.parents]
    if torch.cuda.is_available() or not here:
        return
    items[:] = [item for item in items if item not in here]
    config.hook.pytest_deselected(items=here)
    config.stash[_DESELECTED] = len(here)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    count = config.stash.get(_DESELECTED, 0)
    if count:
        terminalreporter.write_line(
            f"tests/gpu: {count} deselected, torch finds no CUDA device on this machine"
        )
