"""Batches: flat layout, gradients, checks that name sequence and arc."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqtrain.errors import ArgumentError, DeviceError, FsaError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch
from tests.fsa.strategies import automata, quick


def two() -> list[Fsa]:
    return [
        Fsa([[0, 1, 3]], [0.25]),
        Fsa([[1, 0, 2], [0, 1, 1]], [-1.0, -torch.inf], start=1, final={0: -0.5, 1: -1.5}),
    ]


def flat(**changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "arcs": [[0, 1, 3], [1, 0, 2], [0, 1, 1]],
        "weights": [0.25, -1.0, -2.0],
        "final_states": [1, 0, 1],
        "final_weights": [0.0, -0.5, -1.5],
        "starts": [0, 1],
        "num_states": [2, 2],
        "arc_offsets": [0, 1, 3],
        "final_offsets": [0, 1, 3],
    }
    return arguments | changes


def test_layout() -> None:
    batch = FsaBatch.from_list(two(), tags=["a", "b"])
    assert len(batch) == 2
    assert batch.arcs.tolist() == [[0, 1, 3], [1, 0, 2], [0, 1, 1]]
    assert batch.arc_offsets.tolist() == [0, 1, 3]
    assert batch.final_states.tolist() == [1, 0, 1]
    assert batch.final_offsets.tolist() == [0, 1, 3]
    assert batch.starts.tolist() == [0, 1]
    assert batch.num_states.tolist() == [2, 2]
    assert batch.tags == ("a", "b")
    dtypes = {name: getattr(batch, name).dtype for name in ("arcs", "starts", "num_states", "final_states")}
    assert set(dtypes.values()) == {torch.int32}
    assert batch.arc_offsets.dtype == batch.final_offsets.dtype == torch.int64


@quick
@given(st.lists(automata(), max_size=4))
def test_from_list_and_unbind_are_inverse(automata: list[Fsa]) -> None:
    batch = FsaBatch.from_list(automata)
    assert len(batch) == len(automata)
    assert all(a.equal(b) for a, b in zip(automata, batch.unbind(), strict=True))
    again = FsaBatch(
        batch.arcs,
        batch.weights,
        final_states=batch.final_states,
        final_weights=batch.final_weights,
        starts=batch.starts,
        num_states=batch.num_states,
        arc_offsets=batch.arc_offsets,
        final_offsets=batch.final_offsets,
    )
    assert all(a.equal(b) for a, b in zip(automata, again, strict=True))


def test_indexing() -> None:
    batch = FsaBatch.from_list(two())
    assert batch[-1].equal(two()[1])
    with pytest.raises(IndexError, match="automaton 2 of a batch of 2"):
        batch[2]


def test_gradients_reach_the_weights_that_were_given() -> None:
    weights = torch.zeros(1, requires_grad=True)
    final = torch.zeros(2, requires_grad=True)
    factor = torch.tensor(3.0, requires_grad=True)
    batch = FsaBatch.from_list([Fsa([[0, 1, 0]], weights), Fsa([[0, 1, 0]], final=([0, 1], final))])
    scaled = batch.scale_weights(factor)
    (scaled.weights.sum() + scaled.final_weights.sum() + scaled[0].weights.sum()).backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [6.0]
    assert final.grad is not None
    assert final.grad.tolist() == [3.0, 3.0]

    trained = torch.zeros(2, requires_grad=True)
    other = batch.with_weights(trained)
    assert other.weights is trained
    assert other.derived is batch.derived, "the same structure: compiled layouts serve both"


def test_batches_of_one_share_what_was_computed() -> None:
    fsa = two()[0]
    FsaBatch.from_list([fsa]).derived["layout"] = 1
    assert FsaBatch.from_list([fsa]).derived["layout"] == 1
    assert FsaBatch.from_list([fsa, fsa]).derived == {}


def test_weights_take_the_widest_dtype() -> None:
    batch = FsaBatch.from_list([Fsa([[0, 1, 0]]), Fsa([[0, 1, 0]], torch.zeros(1, dtype=torch.float64))])
    assert batch.weights.dtype == batch.final_weights.dtype == torch.float64


def test_scaling_leaves_forbidden_arcs_forbidden() -> None:
    factor = torch.tensor(0.0, requires_grad=True)
    batch = FsaBatch.from_list(two()).scale_weights(factor)
    assert batch.weights.tolist() == [0.0, 0.0, -torch.inf]
    batch.weights[:2].sum().backward()
    assert factor.grad is not None
    assert factor.grad.item() == -0.75
    with pytest.raises(ArgumentError, match="factor must be finite, got inf"):
        batch.scale_weights(torch.inf)


def test_survives_pickle_and_deepcopy() -> None:
    batch = FsaBatch.from_list(two(), tags=["a", "b"])
    batch.derived["layout"] = object()
    for clone in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch)):
        assert clone.tags == ("a", "b")
        assert clone.derived == {}
        assert all(a.equal(b) for a, b in zip(clone, batch, strict=True))


def test_an_empty_batch() -> None:
    batch = FsaBatch.from_list([])
    assert len(batch) == 0
    assert batch.unbind() == []
    assert batch.min_length().tolist() == []
    assert batch.to("cpu") is batch


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"arcs": [[0, 1, 3], [1, 2, 2], [0, 1, 1]]},
        FsaError,
        r"sequence 1 \(b\), arc 0 \(1 → 2, label 2\): its dest",
    ),
    ({"arcs": [[0, 1, 3], [1, 0, 2], [0, 1, -1]]}, FsaError, r"sequence 1 \(b\), arc 1 .*label is negative"),
    ({"weights": [0.0, 0.0, torch.nan]}, FsaError, r"sequence 1 \(b\), arc 1 has the weight nan"),
    (
        {"final_weights": [torch.inf, 0.0, 0.0]},
        FsaError,
        r"sequence 0 \(a\), state 1 has the final weight inf",
    ),
    ({"final_states": [2, 0, 1]}, FsaError, r"sequence 0 \(a\), final state 2 is outside the 2 states"),
    ({"final_states": [1, 1, 1]}, FsaError, r"sequence 1 \(b\), final state 1 is given twice"),
    ({"starts": [0, 2]}, FsaError, r"sequence 1 \(b\), the start state 2 is outside the 2 states"),
    ({"num_states": [0, 2]}, FsaError, r"sequence 0 \(a\), num_states is 0"),
    ({"arc_offsets": [0, 1, 2]}, FsaError, "arc_offsets must run from 0 to 3, got 0 … 2"),
    ({"arc_offsets": [0, 4, 3]}, FsaError, "arc_offsets falls from 4 to 3 at sequence 1"),
    ({"final_offsets": [1, 1, 3]}, FsaError, "final_offsets must run from 0 to 3, got 1 … 3"),
    ({"starts": [0]}, ShapeError, r"starts must have the shape \(2,\), got \(1,\)"),
    ({"final_weights": [0.0]}, ShapeError, r"final_weights must have the shape \(3,\)"),
    ({"tags": ["a"]}, ShapeError, "tags must name each of the 2 automata"),
    ({"tags": "ab"}, ShapeError, "tags must name each of the 2 automata"),
    ({"weights": torch.zeros(3, device="meta")}, DeviceError, "weights are on meta"),
]


@pytest.mark.parametrize(("changes", "error", "message"), REFUSED)
def test_refuses(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FsaBatch(**flat(tags=("a", "b")) | changes)


def test_an_error_carries_sequence_and_arc() -> None:
    with pytest.raises(FsaError) as caught:
        FsaBatch(**flat(weights=[0.0, 0.0, torch.nan]))
    assert (caught.value.sequence, caught.value.arc) == (1, 1)


def test_other_weights_are_checked() -> None:
    batch = FsaBatch.from_list(two())
    with pytest.raises(ShapeError, match=r"weights must have the shape \(3,\), got \(2,\)"):
        batch.with_weights(torch.zeros(2))
    with pytest.raises(FsaError, match="sequence 1, arc 0 has the weight nan"):
        batch.with_weights(torch.tensor([0.0, torch.nan, 0.0]))
    with pytest.raises(FsaError, match="sequence 1, state 1 has the final weight inf"):
        batch.with_weights(torch.zeros(3), torch.tensor([0.0, 0.0, torch.inf]))
    with pytest.raises(DeviceError, match="weights are on meta, the automata on cpu"):
        batch.with_weights(torch.zeros(3, device="meta"))
    with pytest.raises(ShapeError, match="tags must name each of the 2 automata"):
        batch.with_tags(["a"])
    assert batch.with_tags(["a", "b"]).with_tags(None).tags is None
