"""Pools of toy workers."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sprint_bridge.workers.frames import Frame
from sprint_bridge.workers.items import raise_error, read_automaton
from sprint_bridge.workers.process import Command, WorkerProcess
from sprint_bridge.workers.settings import WorkerSettings
from sprint_bridge.workers.supervisor import Job, Supervisor

ROOT = Path(__file__).parents[2]
QUICK = {"restart_delay": 0.01, "start_timeout": 10.0, "item_timeout": 5.0, "stop_timeout": 1.0}


def command(*options: str) -> Command:
    """How a toy worker is called."""
    worker = Path(__file__).with_name("toy_worker.py")
    return Command(
        "toy",
        lambda read, write: [sys.executable, str(worker), str(read), str(write), *options],
        environment={"PYTHONPATH": str(ROOT)},
    )


def worker(*options: str) -> WorkerProcess:
    """A toy worker, started."""
    return WorkerProcess(command(*options), description={"operation": "describe"})


def supervisor(*options: str, **settings: Any) -> Supervisor:
    """A pool of toy workers, not started."""
    return Supervisor(lambda: worker(*options), WorkerSettings(**{**QUICK, **settings}), name="toy")


def job(segment: str, *, cost: float = 0.0) -> Job:
    """The request for the number of states of a segment's automaton."""

    def decode(frame: Frame) -> int:
        raise_error(frame, segment=segment)
        return read_automaton(frame, segment=segment, num_labels=2).num_states

    return Job(segment, {"operation": "automaton", "segment": segment}, decode, cost=cost)


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of a call that must not take longer; tests that hang would say less than one that fails."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # handed to the test
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, f"still running after {seconds} s"
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits for something that happens in another thread or process."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it didn't happen"
        time.sleep(0.01)


def scores(frames: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Some scores (T, 2)."""
    return np.arange(2 * frames, dtype=np.float32).reshape(frames, 2)
