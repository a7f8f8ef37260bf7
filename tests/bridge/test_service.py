"""The service, asked with bare stubs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from seqtrain.aligner.v1 import aligner_pb2 as pb
from seqtrain.aligner.v1.aligner_pb2_grpc import AlignerStub
from seqtrain.aligner.v1.health import is_serving
from seqtrain.aligner.v1.packed_array import unpack
from sprint_bridge.backends.local import LocalBackend
from sprint_bridge.config import Limits
from sprint_bridge.server import AlignerServer
from tests.bridge.toy import builder, serve

LIMITS = Limits(max_batch=4, max_name_length=12, max_orthography_length=20, max_request_bytes=1000)


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[AlignerStub]:
    server = serve(f"unix:{tmp_path}/a.sock", limits=LIMITS)
    with grpc.insecure_channel(server.target) as channel:
        yield AlignerStub(channel)
    server.stop()


def segments(*names: str) -> pb.GetAutomataRequest:
    return pb.GetAutomataRequest(request_id=7, items=[pb.ItemKey(segment=name) for name in names])


def test_info_says_limits_and_identity(stub: AlignerStub) -> None:
    info = stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=5)
    assert info.backend == "local"
    assert info.limits.max_batch == 4
    assert list(info.capabilities) == [
        pb.CAPABILITY_AUTOMATA_BY_SEGMENT,
        pb.CAPABILITY_AUTOMATA_BY_ORTHOGRAPHY,
        pb.CAPABILITY_FORCED_ALIGNMENT,
        pb.CAPABILITY_LOSSES,
        pb.CAPABILITY_SHARED_MEMORY,
    ]
    assert info.config_digest == builder().digest
    assert info.inventory_etag == builder().inventory.etag
    assert len(info.host_id) >= 32
    assert len(info.instance_id) == 32


def test_a_batch_has_a_status_for_each_item(stub: AlignerStub) -> None:
    request = segments("toy/1", "toy/oov", "nix")
    request.items.append(pb.ItemKey(orthography=" two  one "))
    answer = stub.GetAutomata(request, timeout=5)
    assert answer.request_id == 7
    assert [status.code for status in answer.statuses] == [
        pb.ITEM_CODE_OK,
        pb.ITEM_CODE_OUT_OF_VOCABULARY,
        pb.ITEM_CODE_UNKNOWN_SEGMENT,
        pb.ITEM_CODE_OK,
    ]
    assert list(answer.statuses[1].words) == ["nine", "ten"]
    wanted = builder().build_batch(["one two", "two one"])
    num_states = unpack(answer.num_states, name="num_states", dtypes=("int32",), shape=(2,))
    assert num_states.tolist() == wanted.num_states.tolist()
    arcs = unpack(answer.arcs, name="arcs", dtypes=("int32",), shape=(None, 3))
    np.testing.assert_array_equal(arcs, wanted.arcs.numpy())
    weights = unpack(answer.weights, name="weights", dtypes=("float32",), shape=(len(arcs),))
    np.testing.assert_array_equal(weights, wanted.weights.numpy())


def test_a_batch_in_which_everything_fails(stub: AlignerStub) -> None:
    answer = stub.GetAutomata(segments("nix", "toy/oov"), timeout=5)
    assert [status.code for status in answer.statuses] == [
        pb.ITEM_CODE_UNKNOWN_SEGMENT,
        pb.ITEM_CODE_OUT_OF_VOCABULARY,
    ]
    assert list(answer.arcs.shape) == [0, 3]


@pytest.mark.parametrize(
    ("request_", "code", "details"),
    [
        (segments(), "INVALID_ARGUMENT", "a batch of 0; a batch has 1 to 4 items"),
        (segments(*"abcde"), "INVALID_ARGUMENT", "a batch of 5"),
        (segments("a", ""), "INVALID_ARGUMENT", "item 1: a name of 0 bytes"),
        (segments("ä" * 7), "INVALID_ARGUMENT", "item 0: a name of 14 bytes; a name has 1 to 12"),
        (pb.GetAutomataRequest(items=[pb.ItemKey()]), "INVALID_ARGUMENT", "item 0 has no key"),
        (
            pb.GetAutomataRequest(items=[pb.ItemKey(orthography="x" * 21)]),
            "INVALID_ARGUMENT",
            "item 0: an orthography of 21 bytes; it may have 20",
        ),
        (segments("x" * 2000), "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_limits(stub: AlignerStub, request_: pb.GetAutomataRequest, code: str, details: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetAutomata(request_, timeout=5)
    assert caught.value.code().name == code
    assert details in caught.value.details()


def test_alignments_are_split_into_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sprint_bridge.service._FRAMES_PER_MESSAGE", 4)
    rows = {f"s{size}": np.arange(size, dtype=np.int32) for size in range(6)}
    server = serve(f"unix:{tmp_path}/a.sock", alignments=rows)
    with grpc.insecure_channel(server.target) as channel:
        names = ["s3", "nix", "s2", "s5", "s0", "s1"]
        answers = list(AlignerStub(channel).GetAlignments(pb.GetAlignmentsRequest(segments=names), timeout=5))
    server.stop()
    codes = [[status.code for status in answer.statuses] for answer in answers]
    ok, unknown = pb.ITEM_CODE_OK, pb.ITEM_CODE_UNKNOWN_SEGMENT
    assert codes == [[ok, unknown, ok], [ok], [ok, ok]]
    frames = [unpack(a.num_frames, name="", dtypes=("int64",), shape=(None,)).tolist() for a in answers]
    assert frames == [[3, 2], [5], [0, 1]]
    labels = unpack(answers[0].labels, name="", dtypes=("int32",), shape=(5,))
    assert labels.tolist() == [0, 1, 2, 0, 1]


def test_without_alignments(stub: AlignerStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.GetAlignments(pb.GetAlignmentsRequest(segments=["toy/1"]), timeout=5))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_not_ready_until_loaded(tmp_path: Path) -> None:
    with (
        AlignerServer(listen=f"unix:{tmp_path}/a.sock") as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        assert not is_serving(channel, timeout=5)
        with pytest.raises(grpc.RpcError) as caught:
            AlignerStub(channel).GetServerInfo(pb.GetServerInfoRequest(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "the server is loading"
        server.serve(LocalBackend(builder()))
        assert is_serving(channel, timeout=5)
        AlignerStub(channel).GetServerInfo(pb.GetServerInfoRequest(), timeout=5)
