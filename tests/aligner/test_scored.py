"""Scores to the service: forced alignments, losses and error signals, by stream and by shared memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import torch

import seqtrain as st
from seqtrain.aligner import AlignerClient
from seqtrain.aligner.shared_region import SharedRegion
from seqtrain.aligner.v1 import aligner_pb2 as pb
from seqtrain.aligner.v1.aligner_pb2_grpc import AlignerStub
from seqtrain.aligner.v1.regions import FOLDER
from seqtrain.errors import (
    AlignerError,
    AlignerItemError,
    ArgumentError,
    DtypeError,
    InfeasibleError,
    ShapeError,
)
from seqtrain.losses import ExternSprintLoss, FastBaumWelchLoss
from sprint_bridge.config import Limits
from sprint_bridge.server import AlignerServer
from tests.bridge.toy import builder, serve

TAGS = ["toy/2", "toy/0", "toy/1"]
LENGTHS = torch.tensor([40, 12, 25])
LABELS = len(builder().inventory)


def random_logits(seed: int, frames: int = 40) -> torch.Tensor:
    return torch.randn(3, frames, LABELS, generator=torch.Generator().manual_seed(seed))


def test_forced_alignment_is_the_best_path(client: AlignerClient) -> None:
    scores = random_logits(1).log_softmax(-1)
    found = client.align(TAGS, scores, LENGTHS)
    path = st.best_path(scores, LENGTHS, builder().automata(TAGS))
    assert found.tags == tuple(TAGS)
    assert torch.equal(found.lengths, LENGTHS)
    assert torch.equal(found.labels, path.labels)


@pytest.fixture(params=[False, True], ids=["stream", "shared memory"])
def scoring(request: pytest.FixtureRequest, server: AlignerServer) -> Iterator[AlignerClient]:
    """A client that sends scores either way."""
    with AlignerClient(server.target, timeout=10.0, shared_memory=request.param) as client:
        yield client


def test_losses_of_the_local_engine_are_the_full_sum(scoring: AlignerClient) -> None:
    """ExternSprintLoss over the service and FastBaumWelchLoss over its automata give the same numbers."""
    local = FastBaumWelchLoss(builder(), reduction="none")
    remote = ExternSprintLoss(scoring, reduction="none")
    by_address = FastBaumWelchLoss(scoring.target, reduction="none")
    assert torch.equal(
        by_address(random_logits(0).log_softmax(-1), LENGTHS, TAGS),
        local(random_logits(0).log_softmax(-1), LENGTHS, TAGS),
    )
    for seed in range(3):
        mine, theirs = random_logits(seed).requires_grad_(), random_logits(seed).requires_grad_()
        wanted = local(mine.log_softmax(-1), LENGTHS, TAGS)
        found = remote(theirs, LENGTHS, TAGS)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-5)
        wanted.sum().backward()
        found.sum().backward()
        torch.testing.assert_close(theirs.grad, mine.grad, rtol=1e-4, atol=1e-6)


def test_half_precision_is_sent_as_it_is(scoring: AlignerClient) -> None:
    log_posteriors = random_logits(5).log_softmax(-1)
    half = scoring.error_signals(TAGS, log_posteriors.half(), LENGTHS)
    whole = scoring.error_signals(TAGS, log_posteriors, LENGTHS)
    torch.testing.assert_close(half.losses, whole.losses, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(half.signals, whole.signals, rtol=0, atol=2e-3)


def test_an_utterance_without_a_path_has_a_reason(scoring: AlignerClient) -> None:
    lengths = torch.tensor([40, 1, 25])
    answer = scoring.error_signals(TAGS, random_logits(6).log_softmax(-1), lengths)
    assert answer.losses[1] == torch.inf
    assert not answer.signals[1].any()
    assert answer.reasons[0] is None
    assert answer.reasons[1] is not None
    assert answer.reasons[1].startswith("infeasible: ")
    with pytest.raises(
        InfeasibleError, match=r"utterance 1 \(toy/0\): 1 frames given: the aligner skipped it \(infeas"
    ):
        ExternSprintLoss(scoring)(random_logits(6), lengths, TAGS)
    with pytest.raises(AlignerItemError, match="'toy/0': infeasible"):
        scoring.align(TAGS, random_logits(6), lengths)


def test_unknown_segments_and_words_are_errors(scoring: AlignerClient) -> None:
    scores = random_logits(7).log_softmax(-1)
    for tag, status in (("nix", "unknown_segment"), ("toy/oov", "out_of_vocabulary")):
        for method in (scoring.error_signals, scoring.align):
            with pytest.raises(AlignerItemError) as caught:
                method(["toy/2", tag, "toy/1"], scores, LENGTHS)
            assert (caught.value.segment, caught.value.status) == (tag, status)


def test_many_chunks(scoring: AlignerClient) -> None:
    """More than a message holds: 3 x 15000 frames."""
    frames = 15000
    lengths = torch.tensor([frames, frames - 7, frames])
    log_posteriors = random_logits(8, frames).log_softmax(-1)
    assert log_posteriors.numel() * 4 > 2 << 20
    answer = scoring.error_signals(TAGS, log_posteriors, lengths)
    wanted = -st.full_sum(log_posteriors, lengths, builder().automata(TAGS))
    torch.testing.assert_close(answer.losses.float(), wanted, rtol=1e-6, atol=1e-3)
    assert not answer.signals[1, frames - 7 :].any()


def test_a_region_goes_with_its_client_and_survives_a_restart_of_the_server(address: str) -> None:
    server = serve(address)
    client = AlignerClient(server.target, timeout=10.0, shared_memory=True)
    log_posteriors = random_logits(9).log_softmax(-1)
    first = client.error_signals(TAGS, log_posteriors, LENGTHS)
    assert client._region is not None
    path = FOLDER / client._region.name
    assert path.stat().st_mode & 0o777 == 0o600
    server.stop()
    server = serve(address)
    again = client.error_signals(TAGS, log_posteriors, LENGTHS)
    assert torch.equal(first.signals, again.signals)
    client.close()
    assert not path.exists()
    server.stop()


def test_what_a_killed_client_left_behind_makes_room(address: str) -> None:
    size = 1 << 20
    server = serve(address, limits=Limits(max_shared_memory_bytes=3 * size // 2))
    with grpc.insecure_channel(server.target) as channel:
        stub = AlignerStub(channel)
        killed = SharedRegion(size)
        stub.RegisterSharedMemory(pb.RegisterSharedMemoryRequest(name=killed.name, bytes=size))
        alive = SharedRegion(size)
        with pytest.raises(grpc.RpcError, match="max_shared_memory_bytes"):
            stub.RegisterSharedMemory(pb.RegisterSharedMemoryRequest(name=alive.name, bytes=size))
        # What the system does for a process that is killed.
        killed._memory.close()
        os.close(killed._descriptor)
        stub.RegisterSharedMemory(pb.RegisterSharedMemoryRequest(name=alive.name, bytes=size))
        assert not (FOLDER / killed.name).exists()
        stub.UnregisterSharedMemory(pb.UnregisterSharedMemoryRequest(name=alive.name))
        stub.UnregisterSharedMemory(pb.UnregisterSharedMemoryRequest(name=alive.name))
        alive.close()
    server.stop()


@pytest.fixture
def stub(server: AlignerServer) -> Iterator[AlignerStub]:
    with grpc.insecure_channel(server.target) as channel:
        yield AlignerStub(channel)


def header(**changes: Any) -> pb.ScoresHeader:
    values: dict[str, Any] = {
        "segments": ["toy/0"], "num_frames": [3], "num_labels": LABELS, "dtype": pb.D_TYPE_FLOAT32,
        "inventory_etag": builder().inventory.etag,
    }  # fmt: skip
    return pb.ScoresHeader(**values | changes)


SIZE = 3 * LABELS * 4


@pytest.mark.parametrize(
    ("parts", "code", "details"),
    [
        ([], "INVALID_ARGUMENT", "the first message must be the header"),
        ([b"abcd"], "INVALID_ARGUMENT", "the first message must be the header"),
        ([header(segments=[], num_frames=[])], "INVALID_ARGUMENT", "a batch of 0; a batch has 1 to 1024"),
        ([header(segments=["x" * 1025])], "INVALID_ARGUMENT", "a name of 1025 bytes"),
        ([header(num_frames=[3, 3])], "INVALID_ARGUMENT", "num_frames must be a count for each of 1"),
        ([header(num_frames=[-1])], "INVALID_ARGUMENT", "num_frames must be a count"),
        (
            [header(num_labels=LABELS + 1)],
            "INVALID_ARGUMENT",
            f"scores of {LABELS + 1} labels; the inventory has",
        ),
        ([header(dtype=pb.D_TYPE_FLOAT64)], "INVALID_ARGUMENT", "scores must be float32 or float16"),
        (
            [header(inventory_etag="other")],
            "FAILED_PRECONDITION",
            "the scores are of the labels other, this server's",
        ),
        (
            [header(num_frames=[1 << 40])],
            "RESOURCE_EXHAUSTED",
            "a call may bring 268435456 (max_score_bytes)",
        ),
        ([header(), b"x" * (SIZE - 1)], "INVALID_ARGUMENT", f"data end after {SIZE - 1} of the {SIZE} bytes"),
        ([header(), b"x" * (SIZE + 1)], "INVALID_ARGUMENT", f"more data than the {SIZE} bytes"),
        ([header(), header()], "INVALID_ARGUMENT", "after the header come data alone"),
        (
            [header(num_frames=[20000]), b"x" * ((1 << 20) + 1)],
            "INVALID_ARGUMENT",
            "a chunk has at most 1048576",
        ),
        (
            [header(shared=pb.SharedMemoryRange(name="seqtrain-0", bytes=SIZE))],
            "INVALID_ARGUMENT",
            "region 'seqtrain-0' isn't registered",
        ),
    ],
)
@pytest.mark.parametrize("kind", [pb.AlignRequest, pb.ComputeLossesRequest])
def test_what_is_refused(stub: AlignerStub, kind: Any, parts: list[Any], code: str, details: str) -> None:
    messages = iter([kind(data=part) if isinstance(part, bytes) else kind(header=part) for part in parts])
    call = stub.Align if kind is pb.AlignRequest else stub.ComputeLosses
    with pytest.raises(grpc.RpcError) as caught:
        list(call(messages, timeout=5))
    assert caught.value.code().name == code
    assert details in caught.value.details()


@pytest.mark.parametrize(
    ("name", "size", "code", "details"),
    [
        ("../etc/passwd", 10, "INVALID_ARGUMENT", "isn't the name of a region"),
        ("seqtrain-" + "0" * 32, 10, "NOT_FOUND", "there is no region"),
    ],
)
def test_regions_that_are_refused(stub: AlignerStub, name: str, size: int, code: str, details: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.RegisterSharedMemory(pb.RegisterSharedMemoryRequest(name=name, bytes=size), timeout=5)
    assert (caught.value.code().name, details in caught.value.details()) == (code, True)


def test_a_region_that_others_may_open_or_of_another_size_or_that_shrinks(stub: AlignerStub) -> None:
    region = SharedRegion(4096)
    path = FOLDER / region.name

    def register(size: int) -> None:
        stub.RegisterSharedMemory(pb.RegisterSharedMemoryRequest(name=region.name, bytes=size), timeout=5)

    path.chmod(0o644)
    with pytest.raises(grpc.RpcError, match="isn't this server's user's alone"):
        register(4096)
    path.chmod(0o600)
    with pytest.raises(grpc.RpcError, match="has 4096 bytes, not 5000"):
        register(5000)
    register(4096)

    def losses(**changes: Any) -> None:
        values = {"name": region.name, "offset": 0, "bytes": SIZE} | changes
        message = pb.ComputeLossesRequest(header=header(shared=pb.SharedMemoryRange(**values)))
        list(stub.ComputeLosses(iter([message]), timeout=5))

    losses()
    for changes in ({"bytes": SIZE + 4}, {"offset": 32}, {"offset": 4096}):
        with pytest.raises(grpc.RpcError, match="the range must lie in the region"):
            losses(**changes)
    os.truncate(path, 16)
    with pytest.raises(grpc.RpcError, match="has shrunk since it was registered"):
        losses()
    region.close()


def test_shared_memory_is_for_unix_sockets() -> None:
    server = serve("127.0.0.1:0", insecure_loopback=True)
    with AlignerClient(server.target, timeout=10.0, shared_memory=True) as client:
        assert "shared_memory" not in client.server_info().capabilities
        assert client.error_signals(TAGS, random_logits(1).log_softmax(-1), LENGTHS).losses.isfinite().all()
        assert client._region is None, "scores went by stream"
    with (
        grpc.insecure_channel(server.target) as channel,
        pytest.raises(grpc.RpcError, match="on a unix socket"),
    ):
        AlignerStub(channel).RegisterSharedMemory(
            pb.RegisterSharedMemoryRequest(name="x", bytes=1), timeout=5
        )
    server.stop()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"log_posteriors": torch.zeros(2, 40, LABELS)}, ShapeError, r"shape \(3, T, V\), got \(2, 40, "),
        (
            {"log_posteriors": torch.zeros(3, 40, LABELS).long()},
            DtypeError,
            "floating-point, got torch.int64",
        ),
        ({"lengths": torch.tensor([1.0, 2.0, 3.0])}, ShapeError, r"\(3,\) integers, got torch\.float32"),
        ({"lengths": torch.tensor([1, 2, 41])}, ArgumentError, r"lengths\[2\] = 41 must lie in 0 … 40"),
        ({"log_posteriors": torch.zeros(3, 40, 2)}, AlignerError, "scores of 2 labels; the inventory has"),
    ],
)
def test_bad_input(
    client: AlignerClient, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {"tags": TAGS, "log_posteriors": random_logits(1), "lengths": LENGTHS}
    with pytest.raises(error, match=message):
        client.error_signals(**arguments | changes)
