"""Clients that are killed, that come all at once, that send much, or ask for too much: the server serves the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

import seqtrain as st
from seqtrain.aligner import AlignerClient
from seqtrain.aligner.v1 import aligner_pb2 as pb
from seqtrain.aligner.v1.aligner_pb2_grpc import AlignerStub
from seqtrain.errors import AlignerError
from seqtrain.lexicon import AutomatonBuilder, HmmTopology, read_lexicon
from sprint_bridge.process import BridgeProcess
from tests.bridge.faults.service import SLACK, peak_memory
from tests.bridge.test_serve_backends import free_port, metrics
from tests.bridge.toy import TRANSCRIPTS, write_config

TAGS = [f"toy/{number}" for number in range(40)]
LIMIT = 100 << 20


class Service:
    """A service, its counters, and the builder that it has inside."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.config = write_config(
            folder,
            metrics=f"127.0.0.1:{self.port}",
            limits={"max_score_bytes": LIMIT, "max_batch": 64, "max_request_bytes": 2 << 20},
            cache_bytes=0,
        )
        self.bridge = BridgeProcess(self.config)
        topology = HmmTopology(states_per_phone=2, phone=st.fsa.Transitions.from_probabilities(loop=0.6))
        self.builder = AutomatonBuilder(read_lexicon(folder / "lexicon.txt"), topology, TRANSCRIPTS)

    def in_flight(self) -> float:
        """Calls that are being answered."""
        return sum(value for name, value in metrics(self.port).items() if name.startswith("calls_in_flight"))

    def check(self) -> None:
        """It serves, within a bounded time."""
        began = time.monotonic()
        with AlignerClient(self.bridge.target, timeout=10.0, cache_bytes=0) as client:
            for one, other in zip(client.automata(TAGS), self.builder.automata(TAGS), strict=True):
                assert one.equal(other)
        assert time.monotonic() - began < SLACK

    def await_idle(self) -> None:
        """No call of a client that is gone is held for long."""
        end = time.monotonic() + 10
        while self.in_flight():
            assert time.monotonic() < end, "calls of a client that is gone are still in flight"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("clients"))
    with service.bridge:
        yield service


KILLED = """
import sys, threading, torch
from seqtrain.aligner import AlignerClient
client = AlignerClient(sys.argv[1], timeout=60.0, cache_bytes=0, shared_memory=sys.argv[2] == "shared")
tags = [f"toy/{number}" for number in range(3)]
labels = len(client.inventory())
client.prefetch([tags] * 10000)
scores = torch.zeros(3, 50000, labels)
lengths = torch.full((3,), 50000)
def send():
    while True:
        client.error_signals(tags, scores, lengths)
threading.Thread(target=send, daemon=True).start()
while True:
    client.automata(tags)
    print("under way", flush=True)
"""


@pytest.mark.parametrize("memory", ["shared", "sent"])
def test_a_client_is_killed_in_the_middle_of_its_streams(service: Service, memory: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, service.bridge.target, memory], stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"under way\n"
        end = time.monotonic() + 20
        name = "calls_in_flightComputeLosses"
        while not metrics(service.port).get(name):
            assert time.monotonic() < end
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    service.check()
    service.await_idle()
    service.check()


def test_sixty_four_clients_at_once(service: Service) -> None:
    wanted = service.builder.automata(TAGS[:8])
    scores = torch.randn(2, 40, len(service.builder.inventory)).log_softmax(-1)
    lengths = torch.tensor([40, 31])
    losses = -st.full_sum(scores, lengths, service.builder.automata(TAGS[:2]))
    failures: list[BaseException] = []
    steps: list[float] = []

    def work(number: int) -> None:
        try:
            with AlignerClient(service.bridge.target, timeout=30.0, cache_bytes=0) as client:
                if number % 2:
                    client.prefetch([TAGS[:8]] * 3)
                for _ in range(3):
                    began = time.monotonic()
                    for one, other in zip(client.automata(TAGS[:8]), wanted, strict=True):
                        assert one.equal(other)
                    steps.append(time.monotonic() - began)
                answer = client.error_signals(TAGS[:2], scores, lengths)
                torch.testing.assert_close(answer.losses.float(), losses)
        except BaseException as error:  # looked at below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(steps) == 64 * 3
    assert max(steps) < 2 * SLACK
    service.await_idle()


@pytest.mark.parametrize("shared_memory", [False, True])
def test_seventy_two_megabytes_of_scores(service: Service, shared_memory: bool) -> None:
    labels = len(service.builder.inventory)
    tags = TAGS[:3]
    frames = 72_000_000 // (4 * labels * len(tags))
    lengths = torch.tensor([frames, frames - 11, frames])
    generator = torch.Generator().manual_seed(5)
    scores = torch.randn(len(tags), frames, labels, generator=generator).log_softmax(-1)
    with AlignerClient(service.bridge.target, timeout=60.0, shared_memory=shared_memory) as client:
        client.inventory()
        began = time.monotonic()
        answer = client.error_signals(tags, scores, lengths)
        assert time.monotonic() - began < 10 + SLACK
    assert answer.reasons == (None, None, None)
    automata = service.builder.automata(tags)
    wanted = -st.full_sum(scores, lengths, automata)
    torch.testing.assert_close(answer.losses.float(), wanted, rtol=1e-5, atol=0.0)
    signals = scores.exp() - st.posteriors(scores, lengths, automata)
    torch.testing.assert_close(answer.signals[0], signals[0], rtol=0.0, atol=1e-4)
    assert not answer.signals[1, frames - 11 :].any()


def header(service: Service, **changes: Any) -> pb.ScoresHeader:
    values: dict[str, Any] = {
        "segments": ["toy/1"],
        "num_frames": [30],
        "num_labels": len(service.builder.inventory),
        "dtype": pb.D_TYPE_FLOAT32,
        "inventory_etag": service.builder.inventory.etag,
    }
    return pb.ScoresHeader(**values | changes)


@pytest.mark.parametrize(
    ("changes", "code", "details"),
    [
        ({"num_frames": [1 << 40]}, "RESOURCE_EXHAUSTED", "max_score_bytes"),
        ({"num_frames": [LIMIT // 4]}, "RESOURCE_EXHAUSTED", "max_score_bytes"),
        ({"num_frames": [1 << 62, 1 << 62], "segments": ["a", "b"]}, "RESOURCE_EXHAUSTED", "max_score_bytes"),
        ({"segments": ["a"] * 65, "num_frames": [1] * 65}, "INVALID_ARGUMENT", "a batch of 65"),
        ({"segments": ["x" * 100_000]}, "INVALID_ARGUMENT", "a name of 100000 bytes"),
        ({"segments": ["x" * (3 << 20)]}, "RESOURCE_EXHAUSTED", "larger than max"),
        ({"num_labels": 1 << 31}, "INVALID_ARGUMENT", "the inventory has"),
    ],
)
def test_a_header_that_asks_for_too_much(
    service: Service, changes: dict[str, Any], code: str, details: str
) -> None:
    """It is refused from the header: no data are waited for, and no memory is taken for them."""
    assert service.bridge.pid is not None
    before = peak_memory(service.bridge.pid)
    withdrawn = threading.Event()

    def messages(kind: Any) -> Iterator[Any]:
        yield kind(header=header(service, **changes))
        withdrawn.wait(20)  # the data don't come

    with grpc.insecure_channel(service.bridge.target) as channel:
        stub = AlignerStub(channel)
        for rpc, kind in ((stub.ComputeLosses, pb.ComputeLossesRequest), (stub.Align, pb.AlignRequest)):
            began = time.monotonic()
            with pytest.raises(grpc.RpcError) as caught:
                list(rpc(messages(kind), timeout=10))
            assert caught.value.code().name == code
            assert details in caught.value.details()
            assert time.monotonic() - began < SLACK
    withdrawn.set()
    assert peak_memory(service.bridge.pid) - before < 16 << 20
    service.await_idle()


def test_a_header_that_is_short_of_its_data_or_long_on_metadata(service: Service) -> None:
    with grpc.insecure_channel(service.bridge.target) as channel:
        stub = AlignerStub(channel)
        short = [pb.ComputeLossesRequest(header=header(service)), pb.ComputeLossesRequest(data=b"\0" * 400)]
        with pytest.raises(grpc.RpcError, match="data end after 400 of the"):
            list(stub.ComputeLosses(iter(short), timeout=10))
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10, metadata=[("x-much", "y" * (1 << 20))])
        assert caught.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    with AlignerClient(service.bridge.target, timeout=10.0) as client:
        scores = torch.zeros(1, LIMIT // (4 * len(service.builder.inventory)) + 1, len(client.inventory()))
        with pytest.raises(AlignerError, match=r"max_score_bytes.*RESOURCE_EXHAUSTED.*use smaller batches"):
            client.error_signals(["toy/1"], scores, torch.tensor([scores.shape[1]]))
    service.check()
