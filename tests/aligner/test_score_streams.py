"""Data of streams that go past protobuf are the bytes that protobuf would write, and read."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seqtrain.aligner.v1 import aligner_pb2 as pb
from seqtrain.aligner.v1.score_streams import Data, parse_part, serialize_part
from seqtrain.aligner.v1.scores import CHUNK_BYTES, chunks

KINDS = [pb.AlignRequest, pb.ComputeLossesRequest, pb.ComputeLossesResponse]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 1 << 20])
def test_written_and_read(kind: type, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    raw = kind(data=data).SerializeToString()
    assert serialize_part(Data(memoryview(data))) == raw
    found = parse_part(kind)(raw)
    assert isinstance(found, Data)
    assert found.WhichOneof("part") == "data"
    assert bytes(found.data) == data


def test_headers_are_protobufs() -> None:
    message = pb.AlignRequest(header=pb.ScoresHeader(segments=["a"], num_frames=[3]))
    raw = serialize_part(message)
    assert raw == message.SerializeToString()
    assert parse_part(pb.AlignRequest)(raw) == message


def read_by_protobuf(raw: bytes) -> tuple[str, bytes]:
    try:
        message = pb.ComputeLossesRequest.FromString(raw)
    except DecodeError:
        return ("nothing", b"")
    return (message.WhichOneof("part") or "", bytes(message.data))


@settings(deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: b"\x12" + data))
@example(b"")
@example(b"\x12")
@example(b"\x12\x00")
@example(b"\x12\x80")
@example(b"\x12\x80\x00")  # a length that takes a byte more than it needs
@example(b"\x12\x81\x80\x80\x80\x00a")
@example(b"\x12\x81\x80\x80\x80\x80\x00a")
@example(b"\x12\x01a\x12\x01b")  # twice: the last counts
@example(b"\x12\x01a\x0a\x00")  # then a header, which takes its place
@example(b"\x12\x02a")
@example(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
def test_whatever_comes_is_read_as_protobuf_reads_it(raw: bytes) -> None:
    try:
        found = parse_part(pb.ComputeLossesRequest)(raw)
    except DecodeError:
        assert read_by_protobuf(raw) == ("nothing", b"")
        return
    assert ((found.WhichOneof("part") or ""), bytes(found.data)) == read_by_protobuf(raw)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5)))
def test_chunks(sizes: list[int]) -> None:
    arrays = [np.arange(size, dtype=np.float32) for size in sizes]
    joined = b"".join(bytes(part.data) for part in chunks(arrays))
    assert joined == b"".join(array.tobytes() for array in arrays)
    big = np.zeros(CHUNK_BYTES // 4 + 1, dtype=np.float32)
    assert [len(part.data) for part in chunks([big])] == [CHUNK_BYTES, 4]
