"""Three seconds of the fuzz; `python -m tests.fuzz.frames --seconds 60` runs it for longer."""

from __future__ import annotations

from tests.fuzz.frames import fuzz, targets


def test_frames_and_pickles() -> None:
    outcomes = fuzz(3.0, seed=1)
    for name, *_ in targets():
        assert outcomes[f"{name}: refused"] > 0
        assert outcomes[f"{name}: accepted"] > 0
