"""Fetching ahead of the training step."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from seqtrain.aligner import AlignerClient
from seqtrain.aligner.prefetch import Prefetcher
from seqtrain.errors import AlignerItemError, AlignerTimeoutError, AlignerUnavailableError
from sprint_bridge.backends.local import LocalBackend
from sprint_bridge.server import AlignerServer
from tests.bridge.toy import builder, serve

BATCHES = [tuple(f"toy/{4 * batch + item}" for item in range(4)) for batch in range(10)]


class Fetch:
    """Fetches upper-case names, and only as often as it is allowed to."""

    def __init__(self, allowed: int = 1000) -> None:
        self.begun: list[tuple[str, ...]] = []
        self.allowed = threading.Semaphore(allowed)
        self.failures: dict[tuple[str, ...], BaseException] = {}
        self.changed = threading.Condition()

    def __call__(self, tags: tuple[str, ...]) -> str:
        with self.changed:
            self.begun.append(tags)
            self.changed.notify_all()
        assert self.allowed.acquire(timeout=10)
        if tags in self.failures:
            raise self.failures[tags]
        return "".join(tags).upper()

    def wait_for(self, count: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: len(self.begun) >= count, timeout=10)


@pytest.fixture
def fetch() -> Fetch:
    return Fetch()


@pytest.fixture
def prefetcher(fetch: Fetch) -> Iterator[Prefetcher[str]]:
    prefetcher = Prefetcher(fetch, depth=2, name="test")
    yield prefetcher
    prefetcher.close()
    fetch.allowed.release(1000)
    assert prefetcher.join(10)


def take_all(prefetcher: Prefetcher[str], fetch: Fetch, names: str) -> list[str | None]:
    return [
        prefetcher.take((name,)) if fetch.wait_for(index + 1) else "never" for index, name in enumerate(names)
    ]


def test_in_order_and_no_further_ahead_than_allowed(prefetcher: Prefetcher[str], fetch: Fetch) -> None:
    prefetcher.plan(["a", "b", "c", "d"])
    assert fetch.wait_for(2)
    time.sleep(0.05)
    assert fetch.begun == [("a",), ("b",)]
    assert take_all(prefetcher, fetch, "abcd") == ["A", "B", "C", "D"]
    assert prefetcher.take(("a",)) is None


def test_a_batch_that_is_being_fetched_is_waited_for(prefetcher: Prefetcher[str], fetch: Fetch) -> None:
    fetch.allowed = threading.Semaphore(0)
    prefetcher.plan(["a"])
    assert fetch.wait_for(1)
    threading.Timer(0.1, fetch.allowed.release).start()
    assert prefetcher.take(("a",)) == "A"


def test_skipped_and_unplanned_batches(prefetcher: Prefetcher[str], fetch: Fetch) -> None:
    prefetcher.plan(["a", "b", "c", "d", "e"])
    assert fetch.wait_for(2)
    assert prefetcher.take(("x",)) is None
    # d is beyond what has been begun: the caller fetches it itself, and a, b, c are given up.
    assert prefetcher.take(("d",)) is None
    assert fetch.wait_for(3)
    assert prefetcher.take(("e",)) == "E"
    assert prefetcher.take(("a",)) is None


def test_a_new_plan_keeps_what_was_fetched(prefetcher: Prefetcher[str], fetch: Fetch) -> None:
    prefetcher.plan(["a", "b"])
    assert fetch.wait_for(2)
    prefetcher.plan(["b", "c"])
    assert fetch.wait_for(3)
    assert prefetcher.take(("b",)) == "B"
    assert prefetcher.take(("c",)) == "C"
    assert sorted(fetch.begun) == [("a",), ("b",), ("c",)]


def test_the_same_batch_twice(prefetcher: Prefetcher[str], fetch: Fetch) -> None:
    prefetcher.plan(["a", "a"])
    assert take_all(prefetcher, fetch, "aa") == ["A", "A"]


def test_errors_are_raised_where_the_batch_is_taken(prefetcher: Prefetcher[str], fetch: Fetch) -> None:
    fetch.failures[("b",)] = AlignerItemError("no b", segment="b", status="unknown_segment")
    fetch.failures[("c",)] = ZeroDivisionError("a bug")
    prefetcher.plan(["a", "b", "c", "d"])
    assert fetch.wait_for(1)
    assert prefetcher.take(("a",)) == "A"
    assert fetch.wait_for(3)
    with pytest.raises(AlignerItemError, match="no b"):
        prefetcher.take(("b",))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        prefetcher.take(("c",))
    assert fetch.wait_for(4)
    assert prefetcher.take(("d",)) == "D"


@pytest.mark.parametrize("error", [AlignerUnavailableError("gone"), AlignerTimeoutError("late")])
def test_a_service_that_was_away_is_asked_again(
    prefetcher: Prefetcher[str], fetch: Fetch, error: BaseException
) -> None:
    fetch.failures[("a",)] = error
    prefetcher.plan(["a", "b"])
    assert fetch.wait_for(2)
    assert prefetcher.take(("a",)) is None


def test_a_service_that_goes_away_while_it_is_waited_for(prefetcher: Prefetcher[str], fetch: Fetch) -> None:
    fetch.allowed = threading.Semaphore(0)
    fetch.failures[("a",)] = AlignerUnavailableError("gone")
    prefetcher.plan(["a"])
    assert fetch.wait_for(1)
    threading.Timer(0.1, fetch.allowed.release).start()
    assert prefetcher.take(("a",)) is None


def test_the_deadline_is_that_of_the_call_and_not_twice_it(address: str) -> None:
    with AlignerClient(address, timeout=0.6) as client:
        client.prefetch(BATCHES)
        time.sleep(0.3)
        began = time.monotonic()
        with pytest.raises(AlignerUnavailableError):
            client.automata(BATCHES[0])
        assert 0.5 < time.monotonic() - began < 0.6 + 0.5


def test_closing_gives_up_the_plan(fetch: Fetch) -> None:
    prefetcher = Prefetcher(fetch, depth=1, name="test")
    prefetcher.plan(["a", "b", "c"])
    assert fetch.wait_for(1)
    prefetcher.close()
    assert prefetcher.join(10)
    assert prefetcher.take(("b",)) is None
    prefetcher.plan(["d"])
    assert prefetcher.join(0)
    assert fetch.begun == [("a",)]


class SlowBackend(LocalBackend):
    """Takes its time for each batch."""

    seconds = 0.1

    def automata(self, items):  # type: ignore[no-untyped-def]
        time.sleep(self.seconds)
        return super().automata(items)


def test_prefetching_hides_the_latency(address: str) -> None:
    server = AlignerServer(listen=address)
    server.start()
    server.serve(SlowBackend(builder()))
    waited = {}
    for prefetch in (False, True):
        with AlignerClient(address, timeout=10.0) as client:
            client.server_info()
            if prefetch:
                client.prefetch(BATCHES[:6])
            waited[prefetch] = 0.0
            for batch in BATCHES[:6]:
                time.sleep(0.2)  # the training step
                began = time.monotonic()
                automata = client.automata(batch)
                waited[prefetch] += time.monotonic() - began
                assert automata.tags == batch
                assert all(a.equal(b) for a, b in zip(automata, builder().automata(batch), strict=True))
    server.stop()
    assert waited[False] > 6 * SlowBackend.seconds
    assert waited[True] < waited[False] / 2


def test_item_errors_surface_at_their_batch(client: AlignerClient) -> None:
    client.prefetch([BATCHES[0], ("toy/1", "toy/oov"), BATCHES[1]])
    assert client.automata(BATCHES[0]).tags == BATCHES[0]
    with pytest.raises(AlignerItemError, match="'nine', 'ten'"):
        client.automata(["toy/1", "toy/oov"])
    assert client.automata(BATCHES[1]).tags == BATCHES[1]


def test_prefetching_over_a_restart(server: AlignerServer, address: str) -> None:
    with AlignerClient(address, timeout=1.0, prefetch_depth=3) as client:
        client.prefetch(BATCHES)
        client.automata(BATCHES[0])
        server.stop()
        time.sleep(2.5)  # a prefetch fails in the background
        again = serve(address)
        for batch in BATCHES[1:]:
            assert client.automata(batch).tags == batch
        again.stop()


def test_closing_ends_a_prefetch_that_waits(address: str) -> None:
    client = AlignerClient(address, timeout=60.0)
    client.prefetch(BATCHES)
    time.sleep(0.2)
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 2.0
    assert not any("prefetch" in thread.name for thread in threading.enumerate())
