"""Rescoring: other scores, other graph weights, scales."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain import lattice as lt
from seqtrain.errors import ArgumentError, FsaError, LabelError, ShapeError
from seqtrain.fsa import Fsa

GRAPH = Fsa(
    [[0, 1, 0], [1, 1, 0], [1, 2, 1], [2, 2, 1], [0, 2, 2], [2, 1, 0]],
    np.array([-0.1, -0.7, -0.4, -0.2, -1.0, -0.3]),
    final=([2], np.array([-0.5])),
)
LENGTHS = torch.tensor([4, 3])


def scores(seed: int) -> torch.Tensor:
    return torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_new_scores_and_weights_are_as_if_intersected_anew() -> None:
    old, new = scores(0), scores(1).requires_grad_()
    other = Fsa(GRAPH.arcs, GRAPH.weights * 3 - 1, final=(GRAPH.final_states, GRAPH.final_weights))
    lattice = lt.intersect(old, LENGTHS, GRAPH)
    both = lt.rescore(lattice, scores=new, graph=other)
    exact = lt.intersect(new, LENGTHS, other)
    assert torch.equal(both.weights, exact.weights)
    lt.total_score(both).sum().backward()
    ours = new.grad.clone()
    new.grad = None
    lt.total_score(exact).sum().backward()
    assert torch.equal(ours, new.grad)
    packed = st.Packed(torch.cat([new[0], new[1, :3]]), torch.tensor([0, 4, 7]))
    assert torch.equal(lt.rescore(lattice, scores=packed).acoustic, lt.rescore(lattice, scores=new).acoustic)
    batch = st.fsa.FsaBatch.from_list([other, other])
    assert torch.equal(lt.rescore(lattice, graph=batch).graph, both.graph)


def test_scales() -> None:
    lattice = lt.intersect(scores(0), LENGTHS, GRAPH)
    scaled = lt.rescore(lattice, acoustic_scale=0.5, graph_scale=2.0)
    np.testing.assert_allclose(scaled.weights, 0.5 * lattice.acoustic + 2 * lattice.graph, atol=1e-12)
    np.testing.assert_allclose(scaled.final_weights, 2 * lattice.final_weights, atol=1e-12)
    assert torch.equal(scaled.acoustic, lattice.acoustic)
    weights = torch.zeros_like(lattice.graph).requires_grad_()
    value = lt.total_score(lt.rescore(lattice, graph=weights))
    value.sum().backward()
    np.testing.assert_allclose(weights.grad.sum(), 7, atol=1e-9)  # one arc a frame


def test_bad_input() -> None:
    lattice = lt.intersect(scores(0), LENGTHS, GRAPH)
    with pytest.raises(ShapeError, match="scores hold 1 utterances, the lattice 2"):
        lt.rescore(lattice, scores=scores(0)[:1])
    with pytest.raises(ShapeError, match="scores of utterance 0 have 3 frames, the lattice 4"):
        lt.rescore(lattice, scores=scores(0)[:, :3])
    with pytest.raises(LabelError, match=r"has label 2, but scores have 2 labels \(0 … 1\)"):
        lt.rescore(lattice, scores=scores(0)[:, :, :2])
    with pytest.raises(ShapeError, match="one weight an arc, got"):
        lt.rescore(lattice, graph=torch.zeros(3))
    with pytest.raises(ShapeError, match="the graph isn't that of the lattice: its arc 5 is missing or has"):
        lt.rescore(lattice, graph=Fsa(GRAPH.arcs[:5]))
    with pytest.raises(ShapeError, match="graph holds 3 automata for 2 utterances"):
        lt.rescore(lattice, graph=st.fsa.FsaBatch.from_list([GRAPH] * 3))
    with pytest.raises(FsaError, match="sequence 0, arc 0 has the weight nan"):
        lt.rescore(lattice, acoustic_scale=float("nan"))
    parts = lattice._parts() | {"graph_arcs": None}
    with pytest.raises(ArgumentError, match="doesn't know its graph's arcs"):
        lt.rescore(lt.Lattice._from_checked(parts), graph=GRAPH)
    words = lt.Lattice.from_arcs([[0, 1, 0]], frames=[0, 4])
    with pytest.raises(ArgumentError, match="arc 0 of utterance 0 takes 4 frames"):
        lt.rescore(words, scores=scores(0)[:1])
