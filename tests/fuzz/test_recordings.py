"""A few turns of the fuzz; `python -m tests.fuzz.recordings --seconds 60` runs it for longer."""

from __future__ import annotations

from tests.fuzz.recordings import fuzz


def test_recordings() -> None:
    outcomes = fuzz(range(150), seed=1)
    for way in ("bytes", "bytes, recovered", "messages"):
        assert outcomes[f"{way}: refused"] > 0
    assert outcomes["bytes, recovered: accepted"] > 0
    assert outcomes["messages: accepted"] > 0
