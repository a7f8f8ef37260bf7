"""Batches in RETURNN's layout, as RASR's automata come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqtrain.errors import FsaError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch, ctc, rna
from seqtrain.reference import full_sum

RASR = Path(__file__).parents[1] / "data" / "rasr"
PHONES = ["<blk>", "AA", "B", "D", "EH", "IY", "K", "N", "OW", "S", "T"]


def exported(variant: str, segment: str) -> Fsa:
    data = np.load(RASR / "automata.npz")
    edges, weights = data[f"{variant}|{segment}|edges"], data[f"{variant}|{segment}|weights"]
    return Fsa(edges.T.astype(np.int64), -weights)


def batch_arguments() -> dict[str, Any]:
    data = np.load(RASR / "batch_mono3.npz")
    return {
        "num_states": None,
        "edges": data["edges"],
        "weights": data["weights"],
        "start_end": data["start_end_states"],
        "tags": data["tags"].tolist(),
    }


@pytest.mark.parametrize("num_states", [None, 63, [20, 7, 36], torch.tensor([20, 7, 36])])
def test_a_batch_from_rasr_is_its_segments(num_states: Any) -> None:
    batch = FsaBatch.from_rasr(**batch_arguments() | {"num_states": num_states})
    assert batch.tags == ("toy/rec1/seg1", "toy/rec1/seg2", "toy/rec2/seg1")
    assert batch.num_states.tolist() == [20, 7, 36]
    for fsa, segment in zip(batch, batch.tags, strict=True):
        assert fsa.equal(exported("mono3", segment))
    # one silence-less pass over 3 states a phone: "one two", "oh", "dot see sees"
    assert batch.min_length().tolist() == [3 * 5, 3 * 1, 3 * 8]


def test_edges_of_mixed_sequences_keep_their_order() -> None:
    arguments = batch_arguments()
    order = np.random.default_rng(0).permutation(arguments["edges"].shape[1])
    arguments["edges"] = arguments["edges"][:, order]
    arguments["weights"] = arguments["weights"][order]
    shuffled = FsaBatch.from_rasr(**arguments)
    for index, fsa in enumerate(shuffled):
        mine = arguments["edges"][3] == index
        first = arguments["start_end"][0, index]
        assert fsa.arcs[:, :2].tolist() == (arguments["edges"][:2, mine].astype(int) - first).T.tolist()
        assert fsa.arcs[:, 2].tolist() == arguments["edges"][2, mine].tolist()
        assert fsa.weights.tolist() == (-arguments["weights"][mine]).tolist()


@pytest.mark.parametrize("segment", ["toy/rec1/seg1", "toy/rec2/seg2"])
@pytest.mark.parametrize(("variant", "builder"), [("ctc", ctc), ("rna", rna)])
def test_topologies_agree_with_rasr(segment: str, variant: str, builder: Any) -> None:
    transcript = {"toy/rec1/seg1": "B AA N T OW", "toy/rec2/seg2": "B AA B B AA B"}[segment]
    targets = [PHONES.index(phone) for phone in transcript.split()]
    ours, theirs = builder([targets], [len(targets)])[0], exported(variant, segment)
    assert ours.min_length() == theirs.min_length()
    random = np.random.default_rng(1)
    for frames in range(theirs.min_length(), theirs.min_length() + 12):
        scores = random.normal(size=(frames, len(PHONES)))
        assert full_sum(scores, ours) == pytest.approx(full_sum(scores, theirs), abs=1e-9)


def test_weights_are_costs_and_scaled() -> None:
    costs = torch.tensor(batch_arguments()["weights"], requires_grad=True)
    batch = FsaBatch.from_rasr(**batch_arguments() | {"weights": costs}, tdp_scale=0.5)
    assert torch.equal(batch.weights, -0.5 * costs)
    batch.weights.sum().backward()
    assert costs.grad is not None
    assert (costs.grad == -0.5).all()


def test_an_infinite_cost_forbids_an_edge_at_any_scale() -> None:
    edges = [[0, 0], [1, 1], [0, 1], [0, 0]]
    for scale in (1.0, 0.0):
        batch = FsaBatch.from_rasr(2, edges, [np.inf, 1.0], [[0], [1]], tdp_scale=scale)
        assert batch.weights.tolist() == [-np.inf, -scale]


def test_sequences_without_edges() -> None:
    batch = FsaBatch.from_rasr(None, np.zeros((4, 0), dtype=int), [], [[3, 5], [3, 6]])
    assert batch.min_length().tolist() == [0, -1]
    assert len(FsaBatch.from_rasr(0, np.zeros((4, 0), dtype=int), [], np.zeros((2, 0), dtype=int))) == 0


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"edges": [[0], [1], [0], [1]]},
        FsaError,
        "edge 0 belongs to sequence 1, but start_end has 1 sequences",
    ),
    ({"edges": [[0], [1], [-4], [0]]}, FsaError, "sequence 0, arc 0 .*label is negative"),
    ({"edges": [[0], [5], [0], [0]]}, FsaError, "sequence 0 uses the state 5, but num_states is 2"),
    ({"edges": [[0], [5], [0], [0]], "num_states": [2]}, FsaError, "sequence 0, arc 0 .*destination state 5"),
    ({"start_end": [[0], [3]], "num_states": [2]}, FsaError, "sequence 0, final state 3 is outside"),
    ({"weights": [np.nan]}, FsaError, "sequence 0, arc 0 has the weight nan"),
    ({"weights": [-np.inf]}, FsaError, "sequence 0, arc 0 has the weight inf"),
    ({"weights": [0.0, 0.0]}, ShapeError, r"weights must have the shape \(1,\)"),
    ({"edges": [[0], [1], [0]]}, ShapeError, r"edges must have the shape \(4, any\), got \(3, 1\)"),
    ({"start_end": [0, 1]}, ShapeError, r"start_end must have the shape \(2, any\)"),
]


@pytest.mark.parametrize(("changes", "error", "message"), REFUSED)
def test_refuses(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {
        "num_states": 2,
        "edges": [[0], [1], [0], [0]],
        "weights": [0.0],
        "start_end": [[0], [1]],
    }
    with pytest.raises(error, match=message):
        FsaBatch.from_rasr(**arguments | changes)
