"""Packed arrays, answers that contradict themselves, the table of status codes."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seqtrain.aligner.answers import read_alignments, read_automata
from seqtrain.aligner.status import OUTCOMES
from seqtrain.aligner.v1 import aligner_pb2 as pb
from seqtrain.aligner.v1.packed_array import PackedArrayError, pack, unpack
from seqtrain.errors import AlignerError, AlignerItemError, AlignerTimeoutError, AlignerUnavailableError
from seqtrain.fsa import Fsa

DTYPES = st.sampled_from(["<i4", ">i4", "<i8", "<f4", ">f4", "<f8"])


@given(array=hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)))
def test_round_trip(array: np.ndarray) -> None:
    for one in (array, array.T, array[..., ::2] if array.ndim else array):
        name = one.dtype.newbyteorder("=").name
        back = unpack(pack(one), name="it", dtypes=(name,), shape=(None,) * one.ndim)
        np.testing.assert_array_equal(back, one)
        assert back.dtype.isnative
        assert back.flags.writeable


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (pb.PackedArray(dtype=pb.D_TYPE_INT64, shape=[1], raw=bytes(8)), "it: expected int32, found int64"),
        (pb.PackedArray(shape=[1], raw=bytes(4)), "it: expected int32, found dtype code 0"),
        (pb.PackedArray(dtype=77, shape=[1], raw=bytes(4)), "found dtype code 77"),
        (
            pb.PackedArray(dtype=pb.D_TYPE_INT32, shape=[1, 1], raw=bytes(4)),
            r"expected shape \(\*\), found \(1, 1\)",
        ),
        (pb.PackedArray(dtype=pb.D_TYPE_INT32, shape=[-1], raw=b""), r"found \(-1,\)"),
        (
            pb.PackedArray(dtype=pb.D_TYPE_INT32, shape=[2], raw=bytes(4)),
            r"4 bytes for shape \(2,\) of 4 bytes",
        ),
        (pb.PackedArray(dtype=pb.D_TYPE_INT32, shape=[2**62], raw=b""), "0 bytes for shape"),
    ],
)
def test_malformed_arrays(packed: pb.PackedArray, message: str) -> None:
    with pytest.raises(PackedArrayError, match=message):
        unpack(packed, name="it", dtypes=("int32",), shape=(None,))


def test_other_dtypes_are_not_packed() -> None:
    with pytest.raises(PackedArrayError, match="arrays of bool can't be packed"):
        pack(np.zeros(2, dtype=bool))


def answer(**changes: object) -> pb.GetAutomataResponse:
    """Two segments, the first of them unknown."""
    fields: dict[str, object] = {
        "statuses": [
            pb.ItemStatus(code=pb.ITEM_CODE_UNKNOWN_SEGMENT, message="nix"),
            pb.ItemStatus(code=pb.ITEM_CODE_OK),
        ],
        "num_states": pack(np.array([2], dtype=np.int32)),
        "starts": pack(np.array([0], dtype=np.int32)),
        "num_arcs": pack(np.array([2], dtype=np.int64)),
        "arcs": pack(np.array([[0, 1, 5], [1, 1, 5]], dtype=np.int32)),
        "weights": pack(np.array([-0.5, -np.inf], dtype=np.float64)),
        "num_finals": pack(np.array([1], dtype=np.int64)),
        "final_states": pack(np.array([1], dtype=np.int32)),
        "final_weights": pack(np.array([0.0], dtype=np.float64)),
    }
    return pb.GetAutomataResponse(**{**fields, **changes})  # type: ignore[arg-type]


def test_automata_of_an_answer() -> None:
    first, second = read_automata(answer(), ["a", "b"], target="here")
    assert isinstance(first, AlignerItemError)
    assert str(first) == "aligner at here: segment 'a': unknown_segment: nix"
    assert isinstance(second, Fsa)
    assert second.equal(Fsa([[0, 1, 5], [1, 1, 5]], np.array([-0.5, -np.inf])))


def test_reasons_of_a_newer_server_are_errors_too() -> None:
    statuses = [pb.ItemStatus(code=99, message="struck by lightning"), pb.ItemStatus(code=pb.ITEM_CODE_OK)]
    error, _ = read_automata(answer(statuses=statuses), ["a", "b"], target="here")
    assert isinstance(error, AlignerItemError)
    assert error.status == "99"
    assert "struck by lightning" in str(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"statuses": [pb.ItemStatus(code=pb.ITEM_CODE_OK)]}, "1 statuses for 2 segments"),
        (
            {"num_states": pack(np.array([2, 2], dtype=np.int32))},
            r"num_states: expected shape \(1\), found \(2,\)",
        ),
        ({"num_arcs": pack(np.array([-1], dtype=np.int64))}, "num_arcs: a count is outside"),
        ({"num_arcs": pack(np.array([2**40], dtype=np.int64))}, "num_arcs: a count is outside"),
        ({"num_arcs": pack(np.array([3], dtype=np.int64))}, r"arcs: expected shape \(3, 3\), found \(2, 3\)"),
        ({"arcs": pack(np.array([[0, 2, 5], [1, 1, 5]], dtype=np.int32))}, r"malformed automata: .*\(b\)"),
        ({"weights": pack(np.array([0.0, np.nan]))}, r"malformed automata: .*\(b\)"),
        ({"final_states": pb.PackedArray()}, "final_states: expected int32"),
    ],
)
def test_answers_that_contradict_themselves(changes: dict[str, object], message: str) -> None:
    with pytest.raises(AlignerError, match=message) as caught:
        list(read_automata(answer(**changes), ["a", "b"], target="here"))
    assert caught.value.target == "here"


def test_alignments_that_contradict_themselves() -> None:
    good = pb.GetAlignmentsResponse(
        statuses=[pb.ItemStatus(code=pb.ITEM_CODE_OK)],
        num_frames=pack(np.array([2], dtype=np.int64)),
        labels=pack(np.array([1, 2], dtype=np.int32)),
    )
    (labels,) = read_alignments([good], ["a"], target="here")
    assert not isinstance(labels, AlignerItemError)
    assert labels.tolist() == [1, 2]
    with pytest.raises(AlignerError, match="malformed alignments: 1 statuses for 2 segments"):
        list(read_alignments([good], ["a", "b"], target="here"))
    good.num_frames.CopyFrom(pack(np.array([3], dtype=np.int64)))
    with pytest.raises(
        AlignerError, match=r"malformed alignments: labels: expected shape \(3\), found \(2,\)"
    ):
        list(read_alignments([good], ["a"], target="here"))


def test_every_status_has_its_outcome() -> None:
    assert set(OUTCOMES) == set(grpc.StatusCode)
    retried = {code for code, outcome in OUTCOMES.items() if outcome.retried}
    assert retried == {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert OUTCOMES[grpc.StatusCode.UNAVAILABLE].error is AlignerUnavailableError
    assert OUTCOMES[grpc.StatusCode.DEADLINE_EXCEEDED].error is AlignerTimeoutError
