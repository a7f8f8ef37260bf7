"""Lattices of k2 and ours: conversion, and k2's search as an engine of ours."""

from __future__ import annotations

import math

import pytest
import torch

from seqtrain import lattice
from seqtrain.errors import ArgumentError, InfeasibleError, ShapeError
from seqtrain.fsa import to_k2
from seqtrain.lattice import Lattice
from seqtrain.scores import Packed
from tests.k2.graphs import FRAMES, LENGTHS, NUM_LABELS, graphs, quantized
from tests.k2.graphs import lattice as k2_lattice

SCORES = quantized(len(LENGTHS), FRAMES, NUM_LABELS, seed=1)


def test_k2s_lattice_as_ours() -> None:
    theirs = k2_lattice(to_k2(graphs()), SCORES)
    mine = lattice.from_k2(theirs)
    exact = lattice.intersect(SCORES.double(), LENGTHS, graphs())
    assert torch.equal(mine.lengths, exact.lengths)
    assert mine.arcs.shape == exact.arcs.shape
    assert torch.equal(mine.frames, exact.frames)
    expected = theirs.get_tot_scores(use_double_scores=True, log_semiring=True)
    torch.testing.assert_close(lattice.total_score(mine).double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lattice.total_score(exact), expected, rtol=1e-6, atol=0)


def test_our_lattice_as_k2s() -> None:
    aux = torch.arange(graphs().arcs.shape[0]) % 5 - 1
    mine = lattice.intersect(SCORES, LENGTHS, graphs(), aux=aux)
    theirs = lattice.to_k2(mine)
    total = theirs.get_tot_scores(use_double_scores=True, log_semiring=True)
    exact = lattice.total_score(lattice.intersect(SCORES.double(), LENGTHS, graphs()))
    torch.testing.assert_close(total, exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(theirs.am_scores + theirs.lm_scores, theirs.scores)
    back = lattice.from_k2(theirs)
    for name in ("arcs", "frames", "graph", "arc_offsets", "final_states", "final_weights"):
        assert torch.equal(getattr(back, name), getattr(mine, name)), name
    torch.testing.assert_close(back.acoustic, mine.acoustic)
    assert torch.equal(back.aux, mine.aux.masked_fill(mine.aux == 0, -1))


def test_gradients_go_through_k2s_lattice() -> None:
    graph = to_k2(graphs())
    graph.scores.requires_grad_(True)
    lattice.total_score(lattice.from_k2(k2_lattice(graph, SCORES))).sum().backward()
    reference = to_k2(graphs())
    reference.scores.requires_grad_(True)
    k2_lattice(reference, SCORES).get_tot_scores(use_double_scores=True, log_semiring=True).sum().backward()
    torch.testing.assert_close(graph.scores.grad, reference.scores.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shared", [False, True])
def test_k2_as_engine(shared: bool) -> None:
    graph = graphs()[2] if shared else graphs()
    lengths = LENGTHS.flip(0)  # rising: k2 itself would refuse them
    if not shared:
        lengths = torch.tensor([10, 12, 7, 10])
    scores, other = (SCORES.clone().requires_grad_() for _ in range(2))
    mine = lattice.intersect(scores, lengths, graph)
    theirs = lattice.intersect(other, lengths, graph, engine="k2")
    assert isinstance(theirs, Lattice)
    assert theirs.truncated.tolist() == [0] * 4
    for name in ("arc_offsets", "state_offsets", "frames", "lengths"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name)), name
    values = [lattice.total_score(found) for found in (mine, theirs)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=1e-5)
    for value in values:
        value.sum().backward()
    torch.testing.assert_close(scores.grad, other.grad, rtol=1e-5, atol=1e-5)
    # The arcs are the same ones, in another order.
    owner = mine.utterance_of_arcs()
    assert sorted(zip(owner.tolist(), mine.graph_arcs.tolist(), strict=True)) == sorted(
        zip(theirs.utterance_of_arcs().tolist(), theirs.graph_arcs.tolist(), strict=True)
    )


def test_a_beam_of_k2() -> None:
    pruned = lattice.intersect(SCORES, LENGTHS, graphs(), engine="k2", beam=4.0)
    whole = lattice.intersect(SCORES, LENGTHS, graphs())
    assert pruned.truncated.tolist() == [-1] * 4
    assert pruned.arcs.shape[0] < whole.arcs.shape[0]
    best = [lattice.best_path(found).scores() for found in (pruned, whole)]
    torch.testing.assert_close(*best)
    few = lattice.intersect(SCORES, LENGTHS, graphs(), engine="k2", max_active=2, beam=math.inf)
    assert few.arcs.shape[0] < whole.arcs.shape[0]


def test_utterances_without_a_path() -> None:
    lengths = torch.tensor([3, 12, 10, 7])
    with pytest.raises(InfeasibleError) as error:
        lattice.intersect(SCORES, lengths, graphs(), engine="k2")
    assert [item.index for item in error.value.utterances] == [0]
    masked = lattice.intersect(SCORES, lengths, graphs(), engine="k2", on_infeasible="mask")
    assert masked.empty.tolist() == [True, False, False, False]


def test_refusals() -> None:
    with pytest.raises(ArgumentError, match="engine must be 'seqtrain' or 'k2', got 'fst'"):
        lattice.intersect(SCORES, LENGTHS, graphs(), engine="fst")
    packed = Packed(SCORES[0], torch.tensor([0, FRAMES]))
    with pytest.raises(ShapeError, match=r"k2 takes scores of shape \(B, T, V\), not packed ones"):
        lattice.intersect(packed, LENGTHS[:1], graphs()[2], engine="k2")
