"""What the benchmarks measure with."""

from __future__ import annotations

import time

import numpy as np
import pytest

from benchmarks.measure import cpu_times, median_ratio, peak_growth


def _burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_cpu_time_counts_work_not_sleep() -> None:
    times = cpu_times({"work": lambda: _burn(0.05), "sleep": lambda: time.sleep(0.05)}, turns=2)
    assert len(times["work"]) == 2
    assert min(times["work"]) >= 50 > 5 * max(times["sleep"])


def test_the_first_call_of_a_turn_does_not_count_and_turns_rotate() -> None:
    calls: list[str] = []

    def slow_at_first(name: str) -> None:
        first = not calls or calls[-1] != name
        calls.append(name)
        _burn(0.3 if first else 0.15)

    times = cpu_times({name: lambda name=name: slow_at_first(name) for name in "ab"}, turns=2)  # type: ignore[misc]
    assert calls == [*"ab", *"bbaa", *"aabb"]
    assert max(times["a"] + times["b"]) < 250


def test_a_short_call_is_repeated_and_its_mean_counts() -> None:
    calls = 0

    def work() -> None:
        nonlocal calls
        calls += 1
        _burn(0.05 if calls % 4 == 0 else 0.005)

    (milliseconds,) = cpu_times({"work": work}, turns=1)["work"]
    assert calls >= 5
    assert 5 < milliseconds < 50


def test_ratio_is_taken_turn_by_turn() -> None:
    assert median_ratio([10.0, 40.0, 30.0], [1.0, 2.0, 3.0]) == 10.0


def test_peak_growth_sees_memory_that_is_gone_again() -> None:
    growth = peak_growth(lambda: np.ones(8_000_000).sum())
    if growth is None:
        pytest.fail("this kernel doesn't let a process reset its peak")
    assert 60 < growth < 90
