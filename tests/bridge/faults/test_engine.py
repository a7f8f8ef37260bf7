"""An engine's processes fail: nothing is lost, and no step takes longer than an item may, twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from seqtrain.aligner import AlignerClient
from seqtrain.errors import AlignerItemError
from sprint_bridge.process import BridgeProcess
from tests.bridge.faults.service import (
    MORE,
    SEGMENTS,
    SLACK,
    assert_nothing_lost,
    children,
    sprint_service,
    step,
)
from tests.bridge.test_serve_backends import free_port, metrics

ITEM_TIMEOUT = 0.7
WAYS = ("kill", "exit", "abort", "hang", "garbage")
POISONOUS = dict(zip(SEGMENTS[1:], WAYS, strict=True))
ONCE = dict(zip(MORE[-3:], ("kill-once", "hang-once", "garbage-once"), strict=True))
HANGING = MORE[-6:-3]
WELL = MORE[:-6]


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[BridgeProcess]:
    """A service that fails over some segments in each way to fail; starting it is what takes longest here."""
    misbehave = {**POISONOUS, **ONCE, **dict.fromkeys(HANGING, "hang")}
    with sprint_service(
        tmp_path_factory.mktemp("engine"),
        misbehave=misbehave,
        item_timeout=ITEM_TIMEOUT,
        metrics=f"127.0.0.1:{port}",
    ) as bridge:
        yield bridge


@pytest.fixture
def client(bridge: BridgeProcess) -> Iterator[AlignerClient]:
    with AlignerClient(bridge.target, timeout=30.0, cache_bytes=0, failed_items="impossible") as client:
        yield client


def test_a_worker_is_killed_in_the_middle_of_a_batch(
    bridge: BridgeProcess, client: AlignerClient, port: int
) -> None:
    before = metrics(port)
    assert bridge.pid is not None
    workers = children(bridge.pid, "nn-trainer.stand-in")
    assert len(workers) == 2
    results = []
    asking = threading.Thread(target=lambda: results.append(client.automata_partial(WELL)))
    began = time.monotonic()
    asking.start()
    while metrics(port)["items_answered_totalsprint"] <= before["items_answered_totalsprint"]:
        time.sleep(0.001)
    assert not results, "still in the middle"
    os.kill(workers[0], signal.SIGKILL)
    asking.join(30)
    assert_nothing_lost(results[0], WELL)
    assert time.monotonic() - began < 5 + SLACK
    after = metrics(port)
    assert after["worker_crashes_totalsprint"] == before["worker_crashes_totalsprint"] + 1
    assert after["items_quarantinedsprint"] == before["items_quarantinedsprint"]
    assert workers[0] not in children(bridge.pid, "nn-trainer.stand-in")


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_fails_over_an_item_which_is_then_poisonous(
    bridge: BridgeProcess, client: AlignerClient, way: str
) -> None:
    (poison,) = (segment for segment, kind in POISONOUS.items() if kind == way)
    tags = [WELL[0], poison, SEGMENTS[0], *WELL[1:4]]
    bound = 2 * ITEM_TIMEOUT if way == "hang" else 0.0

    # Each worker that it is given to fails; the others of the batch have their automata all the same.
    began = time.monotonic()
    assert_nothing_lost(client.automata_partial(tags), tags, {poison: "crashed"})
    assert time.monotonic() - began < bound + SLACK

    # After that it isn't tried any more, and costs nothing; training goes on without it, and says so.
    assert_nothing_lost(client.automata_partial(tags), tags, {poison: "quarantined"})
    _, masked, took = step(client, tags)
    assert masked == (poison,)
    assert took < SLACK
    with (
        AlignerClient(bridge.target, timeout=10.0) as strict,
        pytest.raises(AlignerItemError, match=f"'{poison}': quarantined: .* has cost 2 processes of sprint"),
    ):
        strict.automata(tags)


@pytest.mark.parametrize("tag", ONCE)
def test_a_worker_that_fails_once_costs_no_item(client: AlignerClient, tag: str) -> None:
    tags = [SEGMENTS[0], tag, *WELL[10:14]]
    _, masked, took = step(client, tags)
    assert masked == ()
    assert took < ITEM_TIMEOUT + SLACK
    assert_nothing_lost(client.automata_partial(tags), tags)


def test_all_workers_hang_while_many_clients_wait(bridge: BridgeProcess) -> None:
    """More items that hang than workers: the others are only late."""
    results = {}

    def ask(number: int) -> None:
        tags = [WELL[number], HANGING[number % 3], WELL[100 + number]]
        with AlignerClient(bridge.target, timeout=60.0) as client:
            results[number] = tags, client.automata_partial(tags)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # Three items, two deaths each, on two workers; some of the six may try an item a last time.
    assert time.monotonic() - began < 6 * ITEM_TIMEOUT + SLACK
    assert len(results) == 6
    for tags, found in results.values():
        (error,) = found.errors
        assert error.status in ("crashed", "quarantined")
        assert_nothing_lost(found, tags, {tags[1]: error.status})
