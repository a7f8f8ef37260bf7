"""Fetching batches ahead of the training step, in threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from seqtrain.errors import AlignerTimeoutError, AlignerUnavailableError

__all__ = ["Prefetcher"]

T = TypeVar("T")


@dataclass
class _Entry(Generic[T]):
    tags: tuple[str, ...]
    future: Future[T] = field(default_factory=Future)


class Prefetcher(Generic[T]):
    """Fetches planned batches, at most `depth` of them ahead of what has been taken, `threads` at a time.

    What goes wrong with a batch is raised when that batch is taken. The threads start with the first plan.
    """

    def __init__(
        self, fetch: Callable[[tuple[str, ...]], T], *, depth: int, name: str, threads: int = 1
    ) -> None:
        self._fetch = fetch
        self._depth = depth
        self._name = name
        self._changed = threading.Condition()
        self._plan: deque[_Entry[T]] = deque()
        self._closed = False
        self._num_threads = threads
        self._threads: list[threading.Thread] = []

    def plan(self, batches: Iterable[Sequence[str]]) -> None:
        """Replaces the plan; what was fetched for a batch that stands in both is kept."""
        entries = deque(_Entry[T](tuple(batch)) for batch in batches)
        with self._changed:
            fetched: dict[tuple[str, ...], deque[_Entry[T]]] = {}
            for old in self._plan:
                if old.future.running() or old.future.done():
                    fetched.setdefault(old.tags, deque()).append(old)
            for index, entry in enumerate(entries if fetched else ()):
                if fetched.get(entry.tags):
                    entries[index] = fetched[entry.tags].popleft()
            self._plan = entries
            if not self._threads and not self._closed:
                self._threads = [
                    threading.Thread(target=self._run, name=self._name, daemon=True)
                    for _ in range(self._num_threads)
                ]
                for thread in self._threads:
                    thread.start()
            self._changed.notify_all()

    def take(self, tags: tuple[str, ...]) -> T | None:
        """What was fetched for a planned batch, or None where the caller has to fetch it itself.

        Waits where the batch is being fetched right now. Batches planned before it are given up: the training
        step has passed them. None is the answer for a batch that wasn't planned or not begun, and for one
        that failed for want of the service: it may be back by now, or the caller's deadline be a later one.
        """
        with self._changed:
            index = next((i for i, entry in enumerate(self._plan) if entry.tags == tags), None)
            if index is None:
                return None
            for _ in range(index):
                self._plan.popleft().future.cancel()
            future = self._plan.popleft().future
            self._changed.notify_all()
            if future.cancel():
                return None
        try:
            return future.result()
        except (CancelledError, AlignerUnavailableError, AlignerTimeoutError):
            return None

    def close(self) -> None:
        """Gives up the plan and lets the threads end after the calls they are in."""
        with self._changed:
            self._closed = True
            for entry in self._plan:
                entry.future.cancel()
            self._plan.clear()
            self._changed.notify_all()

    def join(self, timeout: float) -> bool:
        """Waits for the threads to end after `close`; whether they have."""
        deadline = time.monotonic() + timeout
        others = [thread for thread in self._threads if thread is not threading.current_thread()]
        for thread in others:
            thread.join(max(deadline - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in others)

    def _next(self) -> _Entry[T] | None:
        # The plan begins with what has been fetched and not been taken, so this looks at no more than depth
        # entries.
        for entry, _ in zip(self._plan, range(self._depth), strict=False):
            if not entry.future.running() and not entry.future.done():
                return entry
        return None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next() is not None)
                entry = self._next()
                if self._closed or entry is None:
                    return
                entry.future.set_running_or_notify_cancel()
            try:
                result = self._fetch(entry.tags)
            except BaseException as error:  # whoever takes the batch gets it, whatever it is
                entry.future.set_exception(error)
            else:
                entry.future.set_result(result)
