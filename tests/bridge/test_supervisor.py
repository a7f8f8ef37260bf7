"""A pool of workers: whatever happens to one of them, every item gets its answer, and in time."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from seqtrain.errors import (
    ConfigError,
    EngineError,
    QuarantinedError,
    SkippedError,
    UnknownSegmentError,
    WorkerCrashedError,
)
from sprint_bridge.workers.errors import EngineMismatchError, EngineStartError
from sprint_bridge.workers.frames import Frame
from sprint_bridge.workers.process import WorkerProcess
from sprint_bridge.workers.quarantine import Quarantine
from sprint_bridge.workers.settings import WorkerSettings
from sprint_bridge.workers.supervisor import Job, Supervisor
from tests.bridge.test_process import is_running
from tests.bridge.toy_pool import QUICK, job, supervisor, wait_until, within, worker


class Recorded:
    """A pool whose workers' processes are known."""

    def __init__(self, *options: str, **settings: Any) -> None:
        self.workers: list[WorkerProcess] = []
        self.pool = Supervisor(
            lambda: self._start(options), WorkerSettings(**{**QUICK, **settings}), name="toy"
        )

    def _start(self, options: tuple[str, ...]) -> WorkerProcess:
        self.workers.append(worker(*options))
        return self.workers[-1]

    def __enter__(self) -> Recorded:
        self.pool.start()
        return self

    def __exit__(self, *_: object) -> None:
        within(10, self.pool.close)
        assert not any(is_running(process.pid) for process in self.workers)
        assert not any(thread.name.startswith("toy-") for thread in threading.enumerate())


def kinds(results: list[Any]) -> list[Any]:
    return [type(result) if isinstance(result, Exception) else result for result in results]


def test_answers_come_in_order() -> None:
    with Recorded(instances=2) as recorded:
        segments = [f"{'a' * (index % 7)}-{index}" for index in range(60)]
        segments[3], segments[7] = "x-unknown", "x-skipped"
        results = within(10, lambda: recorded.pool.run([job(segment) for segment in segments]))
        assert kinds(results) == [
            {3: UnknownSegmentError, 7: SkippedError}.get(index, len(segment) + 1)
            for index, segment in enumerate(segments)
        ]
        assert recorded.pool.run([]) == []
        counters = recorded.pool.counters()
        assert (counters.instances, counters.alive, counters.answered) == (2, 2, 60)
        assert (counters.restarts, counters.crashes, counters.waiting, counters.in_flight) == (0, 0, 0, 0)
        assert counters.working_seconds > 0


def test_the_longest_are_begun_first_and_both_workers_share() -> None:
    order: list[str] = []

    def noted(segment: str, cost: float) -> Job:
        plain = job(segment, cost=cost)

        def decode(frame: Frame) -> Any:
            order.append(segment)
            return plain.decode(frame)

        return Job(segment, plain.message, decode, cost=cost)

    with Recorded(instances=1) as one:
        one.pool.run([noted(name, cost) for name, cost in (("a", 1), ("b", 5), ("c", 3), ("d", 5))])
        assert order == ["b", "d", "c", "a"]
    with Recorded(instances=2) as two:
        batch = [job(f"{number}-slow") for number in range(6)]
        thread = threading.Thread(target=lambda: two.pool.run(batch), daemon=True)
        thread.start()
        wait_until(lambda: two.pool.counters().in_flight == 2)
        thread.join(5)
        assert not thread.is_alive()


def test_a_worker_is_killed_in_the_middle_of_a_batch() -> None:
    with Recorded(instances=2, item_timeout=5.0) as recorded:
        results: list[Any] = []
        batch = [job(f"{number}-slow") for number in range(8)]
        thread = threading.Thread(daemon=True, target=lambda: results.extend(recorded.pool.run(batch)))
        began = time.monotonic()
        thread.start()
        time.sleep(0.3)
        os.kill(recorded.workers[0].pid, signal.SIGKILL)
        thread.join(5)
        assert results == [7] * 8
        assert time.monotonic() - began < 3
        counters = recorded.pool.counters()
        assert (counters.crashes, counters.restarts, counters.quarantined) == (1, 1, 0)


def test_a_worker_that_dies_while_idle_costs_no_item() -> None:
    with Recorded() as recorded:
        os.kill(recorded.workers[0].pid, signal.SIGKILL)
        wait_until(lambda: not recorded.workers[0].is_alive())
        assert within(5, lambda: recorded.pool.run([job("abc")])) == [4]
        assert recorded.pool.counters().retried == 0


@pytest.mark.parametrize("way", ["kill", "exit", "garbage", "hang"])
def test_one_failure_is_made_good(way: str, tmp_path: Path) -> None:
    with Recorded(f"state={tmp_path}", instances=2, item_timeout=0.5) as recorded:
        segments = [f"{number}-once-{way}" if number in (1, 4) else f"{number}-x" for number in range(6)]
        results = within(5, lambda: recorded.pool.run([job(segment) for segment in segments]))
        assert results == [len(segment) + 1 for segment in segments]
        counters = recorded.pool.counters()
        assert (counters.crashes, counters.retried, counters.quarantined) == (2, 2, 0)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("kill", "it died; killed by SIGKILL"),
        ("exit", "it died; ended with status 3; it said:"),
        ("garbage", "the answer begins with b'Segm', no frame does"),
        ("hang", r"no answer within 0\.3 s"),
        ("nonsense", "the answer has no array 'weights'"),
    ],
)
def test_a_poisonous_item_is_put_under_quarantine(way: str, message: str) -> None:
    with Recorded(instances=2, item_timeout=0.3) as recorded:
        # Twice in one batch: the second doesn't cost another worker once the first has cost two.
        segments = ["a", way, "bb", "ccc"]
        results = within(10, lambda: recorded.pool.run([job(segment) for segment in segments]))
        assert kinds(results) == [2, WorkerCrashedError, 3, 4]
        with pytest.raises(
            WorkerCrashedError, match=rf"it has cost 2 processes of toy; the last: {message}"
        ) as caught:
            raise results[1]
        assert str(caught.value).endswith("It won't be tried again.")
        assert caught.value.segment == way
        again = recorded.pool.run([job(segment) for segment in segments])
        assert kinds(again) == [2, QuarantinedError, 3, 4]
        assert f"isn't tried again: it has cost 2 processes of toy; the last: {message[:6]}" in str(again[1])
        counters = recorded.pool.counters()
        assert (counters.crashes, counters.retried, counters.quarantined) == (2, 1, 1)


def test_an_item_under_quarantine_meanwhile_is_not_tried() -> None:
    with Recorded(instances=1) as recorded:
        results = within(5, lambda: recorded.pool.run([job("kill"), job("kill"), job("a")]))
        assert kinds(results) == [WorkerCrashedError, QuarantinedError, 2]
        assert recorded.pool.counters().crashes == 2


def test_what_is_wrong_with_an_answer_alone_costs_no_worker() -> None:
    def mistaken(frame: Frame) -> Any:
        raise RuntimeError("a mistake of ours")

    with Recorded() as recorded:
        results = recorded.pool.run(
            [job("x-bad"), Job("a", {"operation": "automaton", "segment": "a"}, mistaken), job("a")]
        )
        assert kinds(results) == [EngineError, EngineError, 2]
        assert "the answer can't be read: RuntimeError('a mistake of ours')" in str(results[1])
        assert recorded.pool.counters().crashes == 0


def test_quarantine_forgets_the_oldest() -> None:
    quarantine = Quarantine(2)
    for key in ("a", "b", "a", "c\udc80"):
        quarantine.add(key, f"because of {key!a}")
    assert len(quarantine) == 2
    assert [quarantine.reason(key) for key in ("a", "b", "c\udc80")].count(None) == 1


def test_an_idle_worker_that_hangs_is_replaced() -> None:
    with Recorded(ping_interval=0.1, ping_timeout=0.2) as recorded:
        first = recorded.workers[0]
        wait_until(lambda: recorded.pool.counters().alive == 1)
        os.kill(first.pid, signal.SIGSTOP)
        wait_until(lambda: len(recorded.workers) == 2 and recorded.pool.counters().alive == 1)
        assert recorded.pool.run([job("abc")]) == [4]
        assert not first.is_alive()


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (("start=exit",), EngineStartError, "ended with status 3"),
        (("fail=failed",), EngineStartError, "toy can't be started: it can't be"),
    ],
)
def test_a_pool_that_does_not_start(options: tuple[str, ...], kind: type[Exception], message: str) -> None:
    pool = supervisor(*options, instances=2)
    with pytest.raises(kind, match=message):
        within(5, pool.start)
    assert not any(thread.name.startswith("toy-") for thread in threading.enumerate())


def test_a_pool_whose_start_hangs() -> None:
    pool = supervisor("start=hang", start_timeout=0.5)
    began = time.monotonic()
    with pytest.raises(EngineStartError, match=r"no answer within 0\.5 s"):
        within(5, pool.start)
    assert time.monotonic() - began < 3


def test_a_start_that_fails_in_an_unforeseen_way() -> None:
    def make() -> WorkerProcess:
        raise RuntimeError("nobody thought of that")

    pool = Supervisor(make, WorkerSettings(**QUICK), name="toy")
    with pytest.raises(EngineStartError, match="nobody thought of that"):
        within(5, pool.start)


def test_instances_that_disagree(tmp_path: Path) -> None:
    pool = supervisor("digests=12,13", f"state={tmp_path}", instances=2)
    with pytest.raises(
        EngineMismatchError,
        match=r"toy: instance \d is another engine than the first: config_digest is '1\d', not '1\d'",
    ):
        within(5, pool.start)


def test_a_restart_brings_another_engine(tmp_path: Path) -> None:
    with Recorded("digests=12,13", f"state={tmp_path}", start_attempts=2) as recorded:
        results = within(5, lambda: recorded.pool.run([job("kill"), job("a")]))
        assert kinds(results) == [EngineError, EngineError]
        assert "toy is down: toy: instance 0 is another engine than the first: config_digest" in str(
            results[1]
        )
        # As long as that is so, nobody waits.
        assert kinds(within(1, lambda: recorded.pool.run([job("a")]))) == [EngineError]
        assert recorded.pool.counters().start_failures >= 2


def test_a_pool_that_was_down_comes_up_again(tmp_path: Path) -> None:
    # The second and third worker give up at their start; the fourth doesn't.
    class Flaky(Recorded):
        def _start(self, options: tuple[str, ...]) -> WorkerProcess:
            return super()._start(("start=exit",) if len(self.workers) in (1, 2) else options)

    with Flaky(start_attempts=2, restart_delay=0.2) as recorded:
        assert kinds(within(5, lambda: recorded.pool.run([job("kill"), job("a")]))) == [
            EngineError,
            EngineError,
        ]
        wait_until(lambda: recorded.pool.counters().alive == 1)
        assert recorded.pool.run([job("a")]) == [2]


def test_restarts_wait_longer_and_longer() -> None:
    starts: list[float] = []

    class Timed(Recorded):
        def _start(self, options: tuple[str, ...]) -> WorkerProcess:
            starts.append(time.monotonic())
            return super()._start(options)

    with Timed(restart_delay=0.1, longest_restart_delay=0.4) as recorded:
        within(10, lambda: recorded.pool.run([job("kill"), job("exit")]))
        waits = [after - before for before, after in itertools.pairwise(starts)]
        assert [wait >= least for wait, least in zip(waits, (0.1, 0.2, 0.4), strict=False)] == [True] * 3
        # An answer puts that back.
        recorded.pool.run([job("a")])
        died = time.monotonic()
        recorded.pool.run([job("kill-x")])
        assert starts[-2] - died < 0.4


def test_close_while_it_is_busy() -> None:
    with Recorded(instances=2, item_timeout=30.0) as recorded:
        results: list[Any] = []
        batch = [job("hang"), job("hang-too"), *(job(f"{number}-slow") for number in range(20))]
        thread = threading.Thread(daemon=True, target=lambda: results.extend(recorded.pool.run(batch)))
        thread.start()
        wait_until(lambda: recorded.pool.counters().in_flight == 2)
        began = time.monotonic()
        within(5, recorded.pool.close)
        assert time.monotonic() - began < 3
        thread.join(5)
        assert kinds(results) == [EngineError] * 22
        assert {str(result) for result in results} == {"toy is being stopped"}
        assert kinds(recorded.pool.run([job("a")])) == [EngineError]
        assert recorded.pool.counters().quarantined == 0


def test_close_while_it_starts() -> None:
    pool = supervisor("start=hang", start_timeout=60.0)
    errors: list[BaseException] = []

    def start() -> None:
        try:
            pool.start()
        except EngineStartError as error:
            errors.append(error)

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    within(5, pool.close)
    thread.join(5)
    assert "toy was stopped while it started" in str(errors[0])
    assert time.monotonic() - began < 3


def test_many_threads() -> None:
    with Recorded(instances=2) as recorded:
        answers: dict[int, list[Any]] = {}

        def call(number: int) -> None:
            segments = [f"{number}-{'a' * index}" for index in range(20)]
            if number == 3:
                segments[5] = "kill"
            answers[number] = recorded.pool.run([job(segment) for segment in segments])

        threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(answers) == list(range(8))
        for number, results in answers.items():
            expected: list[Any] = [index + 3 for index in range(20)]
            if number == 3:
                expected[5] = WorkerCrashedError
            assert kinds(results) == expected


@pytest.mark.parametrize(
    ("name", "value"), [("instances", 0), ("item_timeout", 0.0), ("restart_delay", float("inf"))]
)
def test_settings_that_make_no_sense(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"workers.{name} must be") as caught:
        WorkerSettings(**{name: value})
    assert caught.value.key == f"workers.{name}"
