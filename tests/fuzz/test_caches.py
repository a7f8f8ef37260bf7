"""A few turns of the fuzz; `python -m tests.fuzz.caches --seconds 60` runs it for longer."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.caches import fuzz, readers


def test_caches(tmp_path: Path) -> None:
    outcomes = fuzz(range(150), seed=1)
    for reader in readers(tmp_path):
        assert outcomes[f"{reader.name}: refused"] > 0
        assert outcomes[f"{reader.name}: accepted"] > 0
