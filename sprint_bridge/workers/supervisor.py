"""A pool of workers that answers whatever happens to one of them."""

from __future__ import annotations

import heapq
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from seqtrain.errors import EngineError, QuarantinedError, SeqtrainError, WorkerCrashedError
from sprint_bridge.workers.errors import EngineMismatchError, EngineStartError, WorkerFailedError
from sprint_bridge.workers.frames import Frame
from sprint_bridge.workers.process import Worker
from sprint_bridge.workers.quarantine import Quarantine
from sprint_bridge.workers.settings import WorkerSettings

__all__ = ["Job", "PoolCounters", "Supervisor"]

_LOG = logging.getLogger("sprint_bridge")
_MOST_DEATHS = 2


@dataclass(frozen=True)
class Job:
    """A request for one item.

    Attributes:
        segment: the item's name, for errors.
        message, arrays: the request.
        decode: makes of the answer what `run` returns; raises SeqtrainError where it is an error of the item, and
            WorkerFailedError where it is nonsense.
        cost: about how long it takes, in any unit: the longest are begun first.
    """

    segment: str
    message: Mapping[str, Any]
    decode: Callable[[Frame], Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    cost: float = 0.0

    @property
    def key(self) -> str:
        """What quarantine knows the item by: all that is asked, arrays aside."""
        return json.dumps(dict(self.message), sort_keys=True)


@dataclass(frozen=True)
class PoolCounters:
    """What a pool has done since its start, and how it is now.

    Attributes:
        instances: workers that there should be.
        alive: workers that are ready now.
        starts: workers started, the first ones included.
        restarts: workers started in place of others.
        crashes: workers that died, hung or answered nonsense, at work or idle.
        start_failures: starts that came to nothing.
        retried: items that were tried a second time.
        quarantined: items under quarantine.
        answered: items answered, errors included.
        waiting: items that wait for a worker.
        in_flight: items at a worker.
        waiting_seconds: that answered items waited, all together.
        working_seconds: that workers worked on answered items, all together.
    """

    instances: int
    alive: int
    starts: int
    restarts: int
    crashes: int
    start_failures: int
    retried: int
    quarantined: int
    answered: int
    waiting: int
    in_flight: int
    waiting_seconds: float
    working_seconds: float


class _Batch:
    """The jobs of one call."""

    def __init__(self, size: int) -> None:
        self.results: list[Any] = [None] * size
        self.missing = size
        self.done = threading.Event()
        if not size:
            self.done.set()


@dataclass(eq=False)
class _Task:
    """A job on its way."""

    job: Job
    batch: _Batch
    index: int
    order: tuple[float, ...]
    since: float
    deaths: list[str] = field(default_factory=list)

    def __lt__(self, other: _Task) -> bool:
        return self.order < other.order


@dataclass(eq=False)
class _Slot:
    """A place for a worker, and the thread that looks after it."""

    number: int
    worker: Worker | None = None
    ready: bool = False
    busy: bool = False
    starts: int = 0
    failures: int = 0  # starts that failed, and workers that were lost before they had answered, in a row
    failed_starts: int = 0  # in a row
    error: EngineStartError | None = None
    held: _Task | None = None
    last_used: float = 0.0
    thread: threading.Thread | None = None


class Supervisor:
    """Spreads requests over workers: the longest of a batch first, each to the worker that is free first.

    A worker that dies, hangs or answers nonsense is replaced, after a delay that doubles from one failure in a row to
    the next. Its item is tried once more, on the new worker; one that kills that, too, gets WorkerCrashedError, and
    from then on QuarantinedError. The other items aren't concerned. Any thread may call; a job is kept as long as its
    call lasts.

    Args:
        make: starts a worker's process, without waiting for it to get ready.
        settings: how many, and how long they may take.
        name: of the engine, for errors and the log.
    """

    def __init__(self, make: Callable[[], Worker], settings: WorkerSettings, *, name: str) -> None:
        self._make = make
        self._settings = settings
        self._name = name
        self._changed = threading.Condition()
        self._quarantine = Quarantine(settings.max_quarantined)
        # All below is guarded by the condition's lock.
        self._slots = [_Slot(number) for number in range(settings.instances)]
        self._queue: list[_Task] = []
        self._batches = 0
        self._closing = False
        self._description: Mapping[str, Any] | None = None
        self._restarts = self._crashes = self._start_failures = self._retried = self._answered = 0
        self._waiting_seconds = self._working_seconds = 0.0

    def start(self) -> Mapping[str, Any]:
        """Starts all workers and waits until they are ready; what they say about themselves.

        Raises:
            EngineStartError: one doesn't get ready. None runs then.
            EngineMismatchError: they don't say the same.
        """
        for slot in self._slots:
            # Daemons: a process that forgets to close the pool can end all the same, and takes the workers along.
            slot.thread = threading.Thread(
                target=self._look_after, args=(slot,), name=f"{self._name}-{slot.number}", daemon=True
            )
            slot.thread.start()
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closing
                    or all(slot.ready for slot in self._slots)
                    or any(slot.error for slot in self._slots)
                )
            )
            error = next((slot.error for slot in self._slots if slot.error is not None), None)
            if self._closing and error is None:
                error = EngineStartError(f"{self._name} was stopped while it started")
            description = {} if self._description is None else self._description
        if error is not None:
            self.close()
            raise error
        return description

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        """For each job what its `decode` made of the answer, or the SeqtrainError that says what is wrong."""
        batch = _Batch(len(jobs))
        now = time.monotonic()
        with self._changed:
            self._batches += 1
            for index, job in enumerate(jobs):
                task = _Task(job, batch, index, (self._batches, -job.cost, index), now)
                reason = self._quarantine.reason(job.key)
                if reason is not None:
                    self._finish(task, self._quarantined(task, reason))
                elif self._closing:
                    self._finish(task, self._stopped(task))
                elif self._is_down():
                    self._finish(task, self._unavailable(task))
                else:
                    heapq.heappush(self._queue, task)
            self._changed.notify_all()
        batch.done.wait()
        return batch.results

    def counters(self) -> PoolCounters:
        """What the pool has done so far."""
        with self._changed:
            return PoolCounters(
                instances=len(self._slots),
                alive=sum(slot.ready for slot in self._slots),
                starts=sum(slot.starts for slot in self._slots),
                restarts=self._restarts,
                crashes=self._crashes,
                start_failures=self._start_failures,
                retried=self._retried,
                quarantined=len(self._quarantine),
                answered=self._answered,
                waiting=len(self._queue)
                + sum(slot.held is not None and not slot.busy for slot in self._slots),
                in_flight=sum(slot.busy for slot in self._slots),
                waiting_seconds=self._waiting_seconds,
                working_seconds=self._working_seconds,
            )

    def close(self) -> None:
        """Ends the workers: idle ones are asked to, others are killed, and their items get EngineError. Harmless when
        repeated.
        """
        with self._changed:
            self._closing = True
            for slot in self._slots:
                if slot.worker is not None and (slot.busy or not slot.ready):
                    slot.worker.kill()
            while self._queue:
                task = heapq.heappop(self._queue)
                self._finish(task, self._stopped(task))
            self._changed.notify_all()
        for slot in self._slots:
            if slot.thread is not None:
                slot.thread.join()

    # ---- The thread of a slot ----

    def _look_after(self, slot: _Slot) -> None:
        try:
            while self._bring_up(slot):
                task = self._next_task(slot)
                if task is not None:
                    self._work(slot, task)
                elif slot.worker is not None and not self._closing:
                    self._ping(slot, slot.worker)
        finally:
            self._leave(slot)

    def _bring_up(self, slot: _Slot) -> bool:
        """Makes sure that the slot has a worker that is ready; False where the pool is closing."""
        while True:
            with self._changed:
                if slot.failures and not slot.ready:
                    self._changed.wait_for(lambda: self._closing, timeout=self._delay(slot.failures))
                if self._closing:
                    return False
                if slot.ready:
                    return True
            try:
                self._start_worker(slot)
            except EngineStartError as error:
                self._start_failed(slot, error)
            except Exception as error:  # whatever it is, somebody may be waiting for this slot
                self._start_failed(slot, EngineStartError(f"{self._name} can't be started: {error!r}"))

    def _start_worker(self, slot: _Slot) -> None:
        worker = self._make()
        with self._changed:
            slot.worker = worker
            slot.starts += 1
            if slot.starts > 1:
                self._restarts += 1
            if self._closing:  # close() has been by, and hasn't seen it
                worker.kill()
        description = worker.describe(deadline=time.monotonic() + self._settings.start_timeout)
        with self._changed:
            if self._description is None:
                self._description = description
            elif description != self._description:
                raise EngineMismatchError(
                    f"{self._name}: instance {slot.number} is another engine than the first: "
                    + _difference(self._description, description)
                )
            slot.ready = True
            slot.failed_starts = 0
            slot.error = None
            slot.last_used = time.monotonic()
            self._changed.notify_all()

    def _start_failed(self, slot: _Slot, error: EngineStartError) -> None:
        worker, slot.worker = slot.worker, None
        if worker is not None:
            worker.dispose()
        with self._changed:
            if self._closing:
                return
            slot.failures += 1
            slot.failed_starts += 1
            slot.error = error
            self._start_failures += 1
            if slot.held is not None:
                heapq.heappush(self._queue, slot.held)  # another worker may be up
                slot.held = None
            if self._is_down():
                while self._queue:
                    task = heapq.heappop(self._queue)
                    self._finish(task, self._unavailable(task))
            self._changed.notify_all()
        _LOG.error("%s, instance %d: %s", self._name, slot.number, error)

    def _next_task(self, slot: _Slot) -> _Task | None:
        """The task to do next, None where it is time for a ping or the pool is closing."""
        until = slot.last_used + self._settings.ping_interval
        with self._changed:
            while not self._closing:
                if slot.held is None:
                    self._changed.wait_for(
                        lambda: self._queue or self._closing, timeout=max(0.0, until - time.monotonic())
                    )
                    if self._closing or not self._queue:
                        return None
                    slot.held = heapq.heappop(self._queue)
                task = slot.held
                # It may have come to that while the task waited.
                reason = self._quarantine.reason(task.job.key)
                if reason is None:
                    slot.busy = True
                    return task
                slot.held = None
                self._finish(task, self._quarantined(task, reason))
        return None

    def _work(self, slot: _Slot, task: _Task) -> None:
        worker = slot.worker
        if worker is None or not worker.is_alive():
            # It died while it was idle: not this item's fault.
            self._lost(slot, WorkerFailedError("it ended while it was idle"))
            return
        job = task.job
        began = time.monotonic()
        result: Any
        try:
            answer = worker.request(job.message, job.arrays, deadline=began + self._settings.item_timeout)
            result = job.decode(answer)
        except WorkerFailedError as error:
            self._died_at_work(slot, task, error)
            return
        except SeqtrainError as error:
            result = error
        except Exception as error:  # a mistake of ours must not cost more than this one item
            _LOG.exception("%s: the answer for %s can't be read", self._name, job.segment)
            result = EngineError(f"the answer can't be read: {error!r}", segment=job.segment)
        with self._changed:
            slot.busy = False
            slot.held = None
            slot.failures = 0
            slot.last_used = time.monotonic()
            self._waiting_seconds += began - task.since
            self._working_seconds += slot.last_used - began
            self._finish(task, result)

    def _died_at_work(self, slot: _Slot, task: _Task, error: WorkerFailedError) -> None:
        segment = task.job.segment
        self._lost(slot, error, f" over {segment!r:.200}")
        with self._changed:
            if self._closing:
                return  # it was killed by close(); _leave answers the item
            task.deaths.append(str(error))
            if len(task.deaths) < _MOST_DEATHS:
                self._retried += 1
                return
            reason = f"it has cost {len(task.deaths)} processes of {self._name}; the last: {task.deaths[-1]}"
            self._quarantine.add(task.job.key, reason)
            slot.held = None
            self._finish(task, WorkerCrashedError(f"{reason}\nIt won't be tried again.", segment=segment))

    def _ping(self, slot: _Slot, worker: Worker) -> None:
        try:
            worker.ping(deadline=time.monotonic() + self._settings.ping_timeout)
            slot.last_used = time.monotonic()
            slot.failures = 0
        except WorkerFailedError as error:
            self._lost(slot, error, " while it was idle")

    def _lost(self, slot: _Slot, error: WorkerFailedError, occasion: str = "") -> None:
        """Lets go of a worker that is of no use any more; the slot's item, if any, stays with it."""
        worker = slot.worker
        with self._changed:
            slot.worker = None
            slot.ready = slot.busy = False
            slot.failures += 1
            if not self._closing:
                self._crashes += 1
        if worker is not None:
            worker.dispose()
        if not self._closing:
            _LOG.warning("%s, instance %d was lost%s: %s", self._name, slot.number, occasion, error)

    def _leave(self, slot: _Slot) -> None:
        with self._changed:
            worker, slot.worker = slot.worker, None
            asked = slot.ready
            slot.ready = slot.busy = False
            if slot.held is not None:
                self._finish(slot.held, self._stopped(slot.held))
                slot.held = None
            self._changed.notify_all()
        if worker is not None and asked:
            worker.stop(self._settings.stop_timeout)
        elif worker is not None:
            worker.dispose()

    # ---- With the lock held ----

    def _finish(self, task: _Task, result: Any) -> None:
        batch = task.batch
        batch.results[task.index] = result
        batch.missing -= 1
        self._answered += 1
        if batch.missing == 0:
            batch.done.set()

    def _is_down(self) -> bool:
        return all(slot.failed_starts >= self._settings.start_attempts for slot in self._slots)

    def _quarantined(self, task: _Task, reason: str) -> QuarantinedError:
        return QuarantinedError(f"isn't tried again: {reason}", segment=task.job.segment)

    def _unavailable(self, task: _Task) -> EngineError:
        error = next((slot.error for slot in self._slots if slot.error is not None), None)
        return EngineError(f"{self._name} is down: {error}", segment=task.job.segment)

    def _stopped(self, task: _Task) -> EngineError:
        return EngineError(f"{self._name} is being stopped", segment=task.job.segment)

    def _delay(self, failures: int) -> float:
        settings = self._settings
        # The exponent is bounded: 2.0 ** 1100 overflows.
        return min(settings.longest_restart_delay, settings.restart_delay * 2.0 ** min(failures - 1, 60))


def _difference(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    keys = [key for key in {**first, **other} if first.get(key) != other.get(key)]
    return "; ".join(f"{key} is {other.get(key)!r:.100}, not {first.get(key)!r:.100}" for key in keys)
