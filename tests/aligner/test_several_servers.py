"""Several servers that are alike: turns, failover, mixtures."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest
import torch

from seqtrain.aligner import AlignerClient
from seqtrain.aligner.targets import split_targets
from seqtrain.errors import (
    AlignerError,
    AlignerMismatchError,
    AlignerTimeoutError,
    AlignerUnavailableError,
    ArgumentError,
)
from seqtrain.losses import FastBaumWelchLoss
from sprint_bridge.backends.base import BatchAutomata, Orthography, Segment
from sprint_bridge.backends.local import LocalBackend
from sprint_bridge.server import AlignerServer
from tests.bridge.toy import TOPOLOGY, builder, serve
from tests.bridge.toy_pool import wait_until

TAGS = [f"toy/{number}" for number in range(40)]
BATCHES = [TAGS[begin : begin + 4] for begin in range(0, 40, 4)]


class Counting(LocalBackend):
    """Counts the batches that it was asked for."""

    def __init__(self) -> None:
        super().__init__(builder())
        self.batches = 0

    def automata(self, items: Sequence[Segment | Orthography]) -> BatchAutomata:
        self.batches += 1
        return super().automata(items)


class Servers:
    """Three servers, whose addresses stay when they go."""

    def __init__(self, folder: Path) -> None:
        self.targets = [f"unix:{folder}/{name}.sock" for name in "abc"]
        self.engines = [Counting() for _ in self.targets]
        self.running: dict[int, AlignerServer] = {}
        for index in range(3):
            self.start(index)

    def start(self, index: int) -> None:
        server = AlignerServer(listen=self.targets[index], cache_bytes=0)
        server.start()
        server.serve(self.engines[index])
        self.running[index] = server

    def stop(self, index: int) -> None:
        self.running.pop(index).stop()

    @property
    def counts(self) -> list[int]:
        return [engine.batches for engine in self.engines]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    for index in list(servers.running):
        servers.stop(index)


def assert_right(client: AlignerClient, batch: Sequence[str]) -> None:
    found = client.automata(batch)
    assert found.tags == tuple(batch)
    for one, other in zip(found, builder().automata(batch), strict=True):
        assert one.equal(other)


@pytest.mark.parametrize("ahead", [False, True])
def test_servers_take_turns(servers: Servers, ahead: bool) -> None:
    with AlignerClient(",".join(servers.targets), timeout=10.0, cache_bytes=0) as client:
        assert client.target == ",".join(servers.targets)
        client.wait_until_ready()
        client.inventory()
        if ahead:
            client.prefetch(BATCHES)
        for batch in BATCHES:
            assert_right(client, batch)
        assert sum(servers.counts) == len(BATCHES)
        assert all(count >= 2 for count in servers.counts), servers.counts


@pytest.mark.parametrize("ahead", [False, True])
def test_no_batch_is_lost_while_servers_go_and_come(servers: Servers, ahead: bool) -> None:
    with AlignerClient(servers.targets, timeout=10.0, cache_bytes=0) as client:
        if ahead:
            client.prefetch(BATCHES * 3)
        events = {3: (servers.stop, 0), 8: (servers.stop, 2), 14: (servers.start, 0), 20: (servers.stop, 1)}
        for number, batch in enumerate(BATCHES * 3):
            if number in events:
                event, index = events[number]
                event(index)
            began = time.monotonic()
            assert_right(client, batch)
            # The next server is asked at once, not after the deadline of the one that is gone.
            assert time.monotonic() - began < 4.0
        before = servers.counts
        servers.start(1)
        servers.start(2)
        wait_until(lambda: client.automata(["toy/1"]) is not None and all(
            now > then for now, then in zip(servers.counts, before, strict=True)
        ), seconds=10.0)  # fmt: skip


def test_all_of_them_gone(servers: Servers) -> None:
    with AlignerClient(servers.targets, timeout=1.0, cache_bytes=0) as client:
        assert_right(client, BATCHES[0])
        for index in range(3):
            servers.stop(index)
        began = time.monotonic()
        with pytest.raises(
            AlignerUnavailableError, match=r"not reachable for \d\.\d s: unix:.*/[abc]\.sock: "
        ):
            client.automata(BATCHES[1])
        assert 0.9 < time.monotonic() - began < 4.0
        servers.start(1)
        assert_right(client, BATCHES[1])


def test_a_mixture_is_refused_and_both_are_named(servers: Servers) -> None:
    servers.stop(2)
    other = serve(servers.targets[2], topology=dataclasses.replace(TOPOLOGY, silence_probability=0.25))
    digest = builder(dataclasses.replace(TOPOLOGY, silence_probability=0.25)).digest
    with AlignerClient(servers.targets, timeout=10.0, cache_bytes=0) as client:
        good, errors = 0, []
        for batch in BATCHES[:6]:
            try:
                assert_right(client, batch)
                good += 1
            except AlignerMismatchError as error:
                errors.append(error)
    assert good >= 1
    assert errors
    for error in errors:
        assert error.target == servers.targets[2]
        assert servers.targets[2] in str(error)
        assert servers.targets[0] in str(error) or servers.targets[1] in str(error)
        assert "aren't alike: the configuration of the first is " + builder().digest[:12] in str(error)
        assert digest[:12] in str(error)
        assert str(error).endswith("start both with one configuration")
    other.stop()


def test_servers_that_load_hang_or_swallow_are_passed_over(servers: Servers, tmp_path: Path) -> None:
    loading = AlignerServer(listen=f"unix:{tmp_path}/loading.sock")
    loading.start()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/silent.sock")
        silent.listen()
        targets = [loading.target, f"unix:{tmp_path}/silent.sock", servers.targets[0]]
        with AlignerClient(targets, timeout=20.0, cache_bytes=0) as client:
            for batch in BATCHES[:3]:
                began = time.monotonic()
                assert_right(client, batch)
                assert time.monotonic() - began < 6.0
            loading.serve(servers.engines[1])
            time.sleep(1.1)
            for batch in BATCHES[:4]:
                assert_right(client, batch)
            assert servers.counts[1] > 0
    loading.stop()


def test_what_isnt_for_another_server(servers: Servers) -> None:
    """What is wrong with a request is wrong with it everywhere."""
    with AlignerClient(servers.targets, timeout=10.0) as client:
        with pytest.raises(AlignerError, match=r"a name of 2000 bytes.*INVALID_ARGUMENT") as caught:
            client.automata(["x" * 2000])
        assert caught.value.target in servers.targets
        with pytest.raises(AlignerTimeoutError, match="no time was left"):
            client._connection.call("nothing", lambda channel, left: None, deadline=0.0)


def test_scores_and_shared_memory_go_to_one_server(servers: Servers) -> None:
    labels = len(builder().inventory)
    scores = torch.randn(2, 40, labels).log_softmax(-1)
    lengths = torch.tensor([40, 30])
    wanted = FastBaumWelchLoss(builder(), reduction="none")(scores, lengths, TAGS[:2])
    for shared_memory in (True, False):
        with AlignerClient(servers.targets, timeout=10.0, shared_memory=shared_memory) as client:
            for index in range(6):
                if index == 3 and 0 in servers.running:
                    servers.stop(0)
                answer = client.error_signals(TAGS[:2], scores, lengths)
                torch.testing.assert_close(answer.losses.float(), wanted)
                assert client.align(TAGS[:2], scores, lengths).lengths.tolist() == [40, 30]


def test_a_name_with_several_addresses() -> None:
    """As grpc resolves it: here by the scheme that has the addresses in it."""
    engines = [Counting(), Counting()]
    servers = []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for address, engine in zip(("127.0.0.1", "127.0.0.2"), engines, strict=True):
        server = AlignerServer(listen=f"{address}:{port}", insecure_loopback=True, cache_bytes=0)
        server.start()
        server.serve(engine)
        servers.append(server)
    target = f"ipv4:127.0.0.1:{port},127.0.0.2:{port}"
    with AlignerClient(target, timeout=10.0, cache_bytes=0) as client:
        end = time.monotonic() + 10
        while not all(engine.batches for engine in engines):
            assert time.monotonic() < end
            assert_right(client, BATCHES[0])
        servers[0].stop()
        for batch in BATCHES:
            assert_right(client, batch)
    servers[1].stop()


def test_addresses() -> None:
    assert split_targets("unix:/a,unix:/b, host:7") == ("unix:/a", "unix:/b", "host:7")
    assert split_targets(["unix:/a"]) == ("unix:/a",)
    assert split_targets("ipv4:1.2.3.4:5,6.7.8.9:1") == ("ipv4:1.2.3.4:5,6.7.8.9:1",)
    for target, message in (
        ("unix:/a,", "target is ''; it must be unix:/path/of/socket or host:port"),
        ([], "at least one server is needed"),
        (["unix:/a", "unix:/a"], "target has 'unix:/a' twice"),
        ([None], "target is None"),
    ):
        with pytest.raises(ArgumentError, match=message) as caught:
            split_targets(target)  # type: ignore[arg-type]
        assert caught.value.argument == "target"


def test_one_server_alone_is_not_asked_for_its_health(servers: Servers) -> None:
    """What it says of itself by its answers is enough, and a call costs one round trip."""
    asked: list[str] = []

    class Watch(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
        def intercept_unary_unary(self, continuation, details, request):  # type: ignore[no-untyped-def]
            asked.append(details.method)
            return continuation(details, request)

    with AlignerClient(servers.targets[0], timeout=10.0) as client:
        (server,) = client._connection._servers
        server.channel = grpc.intercept_channel(client._connection._open(server), Watch())
        client.automata(BATCHES[0])
    assert [method.rpartition("/")[2] for method in asked] == ["GetServerInfo", "GetAutomata"]
