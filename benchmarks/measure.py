"""CPU time and peak memory of calls inside one process.

Times are CPU time of the process: a machine that others use too distorts wall time more. Contenders take turns, so that
a drift of the machine's speed hits all of them, and ratios are medians over turns. In its turn a contender is called
twice, and the second call counts: the first pays for what the contender before has driven out of the caches. Peak
memory is the growth of the resident set during one call.
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


def cpu_times(contenders: Mapping[str, Call], turns: int) -> dict[str, list[float]]:
    """Milliseconds of CPU time of each contender in each turn, after one turn that doesn't count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns + 1):
        for name, call in contenders.items():
            gc.collect()
            if turn:
                call()
            start = time.process_time()
            call()
            if turn:
                times[name].append((time.process_time() - start) * 1e3)
    return times


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
