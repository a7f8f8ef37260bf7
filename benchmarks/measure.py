"""CPU time and peak memory of calls inside one process.

Times are CPU time of the process: a machine that others use too distorts wall time more. Contenders take turns, so that
a drift of the machine's speed hits all of them, in an order that rotates; ratios are medians over turns. In its turn a
contender is called once without being counted, for what the one before has driven out of the caches, and then as often
as it takes to fill a tenth of a second: a stall of the machine of a few milliseconds, which a long call always has its
share of, would else double a short one. Peak memory is the growth of the resident set during one call.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

__all__ = ["cpu_times", "median_ratio", "peak_growth"]

Call = Callable[[], object]

_LEAST_SECONDS = 0.1


def cpu_times(contenders: Mapping[str, Call], turns: int) -> dict[str, list[float]]:
    """Milliseconds of CPU time of a call of each contender in each turn, after one turn that doesn't count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders.items())
    for turn in range(turns + 1):
        for name, call in order[turn % len(order) :] + order[: turn % len(order)]:
            gc.collect()
            call()
            if turn:
                times[name].append(_mean_seconds(call) * 1e3)
    return times


def _mean_seconds(call: Call) -> float:
    # The end is told by the wall clock: a call may use none of the processor.
    calls, start, wall = 0, time.process_time(), time.perf_counter()
    while calls == 0 or time.perf_counter() - wall < _LEAST_SECONDS:
        call()
        calls += 1
    return (time.process_time() - start) / calls


def median_ratio(peer: list[float], ours: list[float]) -> float:
    """How many times longer the peer took, turn by turn."""
    return median(p / o for p, o in zip(peer, ours, strict=True))


def peak_growth(call: Call) -> float | None:
    """Megabytes by which the resident set grew at its peak during the call; None where the kernel doesn't tell."""
    reset = Path("/proc/self/clear_refs")
    gc.collect()
    _return_free_memory()
    try:
        reset.write_text("5")
    except OSError:
        return None
    before = _status("VmRSS")
    call()
    return (_status("VmHWM") - before) / 1024


def _return_free_memory() -> None:
    """Gives free heap memory back to the system: what an earlier call left there would hide growth."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return float(line.split()[1])
    return float("nan")
