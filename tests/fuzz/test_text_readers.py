"""A few turns of the fuzz; `python -m tests.fuzz.text_readers --seconds 60` runs it for longer."""

from __future__ import annotations

from tests.fuzz.text_readers import fuzz, readers


def test_text_readers() -> None:
    outcomes = fuzz(range(1000), seed=1)
    for name, *_ in readers():
        assert outcomes[f"{name}: refused"] > 0
        assert outcomes[f"{name}: accepted"] > 0
