"""The type: constructors, checks and their messages."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from seqtrain.errors import DtypeError, FsaError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.lattice import Lattice, total_score
from tests.lattice.examples import random_lattice

GOOD: dict[str, Any] = {
    "arcs": [[0, 1, 3], [0, 2, 4], [1, 2, 5]],
    "acoustic": np.array([-1.0, -2.0, -3.0]),
    "frames": [0, 1, 2],
    "final_states": [2],
    "final_weights": np.array([0.5]),
    "arc_offsets": [0, 3],
    "state_offsets": [0, 3],
    "final_offsets": [0, 1],
}


def test_parts() -> None:
    lattice = Lattice(**GOOD, graph=np.array([0.25, 0.0, 0.0]), aux=[7, -1, -1], graph_arcs=[2, 0, 1])
    assert lattice.weights.tolist() == [-0.75, -2.0, -3.0]
    assert lattice.lengths.tolist() == [2]
    assert lattice.truncated.tolist() == [0]
    assert [t.tolist() for t in lattice.arc_frames()] == [[0, 0, 1], [1, 2, 2]]
    assert lattice.utterance_of_arcs().tolist() == [0, 0, 0]
    assert (
        repr(lattice) == "Lattice(utterances=1, states=3, arcs=3, empty=0, truncated=0, dtype=torch.float64)"
    )
    again = pickle.loads(pickle.dumps(lattice))
    assert torch.equal(again.weights, lattice.weights)
    assert again.aux.tolist() == [7, -1, -1]
    assert lattice.to("cpu") is lattice


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arcs": [[0, 1, 3], [0, 2, 4], [2, 1, 5]]}, r"sequence 0, arc 2 \(2 → 1, label 5\): states must stand in"),
        ({"arcs": [[0, 1, 3], [1, 2, 4], [0, 2, 5]]}, r"arc 2 \(0 → 2, label 5\): it leaves a state below .* \(1\)"),
        ({"arcs": [[0, 1, 3], [0, 2, 4], [1, 3, 5]]}, r"its destination state 3 is outside the 3 states 0…2"),
        ({"arcs": [[-1, 1, 3], [0, 2, 4], [1, 2, 5]]}, r"arc 0 .* its source state -1 is outside"),
        ({"arcs": [[0, 1, -3], [0, 2, 4], [1, 2, 5]]}, r"arc 0 .* the label is negative"),
        ({"frames": [0, 2, 2]}, r"arc 2 \(1 → 2, label 5\) runs from frame 2 to frame 2: every arc takes"),
        ({"frames": [0, 1, -2]}, r"runs from frame 0 to frame -2"),
        ({"frames": [-1, 1, 2]}, r"state 0 stands at frame -1, outside 0…2"),
        ({"lengths": [1]}, r"state 2 stands at frame 2, outside 0…1"),
        ({"final_states": [3]}, r"final state 3 is outside the 3 states"),
        ({"final_states": [2, 2], "final_weights": [0.0, 0.0], "final_offsets": [0, 2]}, "state 2 is given twice"),
        ({"acoustic": np.array([0.0, np.inf, 0.0])}, "sequence 0, arc 1 has the weight inf"),
        ({"final_weights": np.array([np.nan])}, "state 2 has the final weight nan"),
        ({"arc_offsets": [0, 2]}, "arc_offsets must run from 0 to 3, got 0 … 2"),
        ({"state_offsets": [0, 2]}, "state_offsets must run from 0 to 3"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FsaError, match=message):
        Lattice(**(GOOD | change))


def test_shapes_and_types_are_named() -> None:
    with pytest.raises(ShapeError, match=r"acoustic must have the shape \(3,\), got \(2,\)"):
        Lattice(**(GOOD | {"acoustic": [0.0, 0.0]}))
    with pytest.raises(ShapeError, match=r"state_offsets must have B \+ 1 entries"):
        Lattice(**(GOOD | {"state_offsets": []}))
    with pytest.raises(ShapeError, match="tags must name each of the 1 utterances, got 2"):
        Lattice(**GOOD, tags=["a", "b"])
    with pytest.raises(DtypeError, match="frames must hold integers"):
        Lattice(**(GOOD | {"frames": [0.5, 1, 2]}))
    with pytest.raises(FsaError, match=r"sequence 0 \(rec/7\), arc 0"):
        Lattice(**(GOOD | {"arcs": [[0, 0, 3], [0, 2, 4], [1, 2, 5]]}), tags=["rec/7"])


def test_a_cycle_is_refused() -> None:
    with pytest.raises(FsaError, match="state 1 lies on a cycle or behind one") as caught:
        Lattice.from_fsa(Fsa([[0, 1, 0], [1, 2, 0], [2, 1, 0]]))
    assert (caught.value.sequence, caught.value.state) == (0, 1)
    with pytest.raises(FsaError, match="state 0 lies on a cycle"):
        Lattice.from_arcs([[0, 0, 1], [0, 1, 1]])


def test_from_fsa_sorts_and_passes_gradients() -> None:
    weights = torch.tensor([-1.0, -2.0, -3.0, -9.0], dtype=torch.float64, requires_grad=True)
    fsa = Fsa([[4, 1, 0], [2, 4, 1], [2, 1, 2], [0, 1, 3]], weights, start=2, final={1: 0.0})
    lattice = Lattice.from_fsa(fsa, aux=[10, 11, 12, 13])
    assert lattice.arcs.tolist() == [[0, 1, 1], [0, 2, 2], [1, 2, 0]]
    assert lattice.frames.tolist() == [0, 1, 2]
    assert lattice.graph_arcs.tolist() == [1, 2, 0]
    assert lattice.aux.tolist() == [11, 12, 10]
    total_score(lattice).sum().backward()
    assert weights.grad is not None
    np.testing.assert_allclose(weights.grad.numpy(), [0.5, 0.5, 0.5, 0.0], atol=1e-12)


def test_unbind_and_relabelling() -> None:
    lattice = random_lattice(range(12))
    every = total_score(lattice)
    parts = lattice.unbind()
    assert len(parts) == len(lattice) == 12
    assert torch.equal(torch.cat([total_score(one) for one in parts]), every)
    for one in parts:
        one.check()
    assert torch.equal(total_score(lattice[-1]), every[-1:])
    with pytest.raises(IndexError, match="utterance 12 of a lattice of 12"):
        lattice[12]
    # Other state numbers of the same automata, and another order of the batch.
    random = np.random.default_rng(3)
    renumbered = []
    for fsa in reversed(list(lattice.to_fsa())):
        number = random.permutation(fsa.num_states)
        rows = fsa.arcs.numpy().copy()
        rows[:, :2] = number[rows[:, :2]]
        finals = (number[fsa.final_states.numpy()], fsa.final_weights)
        renumbered.append(
            Fsa(rows, fsa.weights, num_states=fsa.num_states, start=int(number[0]), final=finals)
        )
    again = total_score(Lattice.from_fsa(FsaBatch.from_list(renumbered))).flip(0)
    np.testing.assert_allclose(again.numpy(), every.numpy(), atol=1e-12)
