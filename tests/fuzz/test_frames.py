"""A few turns of the fuzz; `python -m tests.fuzz.frames --seconds 60` runs it for longer."""

from __future__ import annotations

from tests.fuzz.frames import fuzz, targets


def test_frames_and_pickles() -> None:
    outcomes = fuzz(range(5000), seed=1)
    for name, *_ in targets():
        assert outcomes[f"{name}: refused"] > 0
        assert outcomes[f"{name}: accepted"] > 0
