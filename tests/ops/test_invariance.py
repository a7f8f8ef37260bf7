"""What must not matter: the order of a batch, a constant added to a frame, copies of an automaton."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain.fsa import Fsa, FsaBatch
from tests.fsa.strategies import quick
from tests.ops.examples import (
    Batch,
    random_batch,
    random_ctc_batch,
    random_fsa,
    random_scores,
    random_topology,
)
from tests.ops.gradient import scores_gradient

seeds = hs.integers(0, 2**32)


@quick
@given(seed=seeds, normalize=hs.booleans())
def test_permuted_ctc_batch(seed: int, normalize: bool) -> None:
    batch = random_ctc_batch(seed, batch=5)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(5))
    value, gradient = scores_gradient(lambda x: st.ctc_loss(x, *batch[1:], normalize=normalize), batch.scores)
    moved = [tensor[order] for tensor in batch]
    found = scores_gradient(lambda x: st.ctc_loss(x, *moved[1:], normalize=normalize), moved[0])
    assert torch.equal(found[0], value[order])
    assert torch.equal(found[1], gradient[order])


def permuted(batch: Batch, order: list[int]) -> Batch:
    """The same utterances in another order."""
    return Batch(
        batch.scores[order],
        batch.lengths[order],
        FsaBatch.from_list([batch.automata[index] for index in order]),
    )


@quick
@given(seed=seeds)
def test_permuted_batch_of_automata(seed: int) -> None:
    scores, lengths, graphs = batch = random_batch(seed, batch=5)
    order = np.random.default_rng(seed).permutation(5).tolist()
    moved = permuted(batch, order)
    value, gradient = scores_gradient(lambda x: st.full_sum(x, lengths, graphs, on_infeasible="inf"), scores)
    found = scores_gradient(
        lambda x: st.full_sum(x, moved.lengths, moved.automata, on_infeasible="inf"), moved.scores
    )
    assert torch.equal(found[0], value[order])
    assert torch.equal(found[1], gradient[order])
    path = st.best_path(scores, lengths, graphs, on_infeasible="inf")
    assert torch.equal(st.best_path(*moved, on_infeasible="inf").arcs, path.arcs[order])


@quick
@given(seed=seeds)
def test_an_utterance_alone_or_in_a_batch(seed: int) -> None:
    scores, lengths, graphs = random_batch(seed)
    together = scores_gradient(lambda x: st.full_sum(x, lengths, graphs, on_infeasible="inf"), scores)
    for b in range(len(scores)):
        one = slice(b, b + 1)
        alone = scores_gradient(
            lambda x, b=b: st.full_sum(  # type: ignore[misc]  # mypy can't type a default of a lambda
                x, lengths[b : b + 1], graphs[b], on_infeasible="inf"
            ),
            scores[one],
        )
        assert torch.equal(alone[0], together[0][one])
        assert torch.equal(alone[1], together[1][one])


@quick
@given(seed=seeds, batch=hs.integers(2, 5))
def test_a_shared_automaton_and_copies_of_it(seed: int, batch: int) -> None:
    random = np.random.default_rng(seed)
    fsa = random_fsa(random, states=7, arcs=30, labels=6)
    scores = random_scores(random, batch, 9, 6)
    lengths = torch.from_numpy(random.integers(0, 10, size=batch))
    copies = FsaBatch.from_list([fsa] * batch)
    shared = scores_gradient(lambda x: st.full_sum(x, lengths, fsa, on_infeasible="inf"), scores)
    copied = scores_gradient(lambda x: st.full_sum(x, lengths, copies, on_infeasible="inf"), scores)
    # Copies go through another kernel, in another order of summation.
    torch.testing.assert_close(shared[0], copied[0], rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(shared[1], copied[1], rtol=0, atol=4e-6)
    path = st.best_path(scores, lengths, fsa, on_infeasible="inf")
    assert torch.equal(path.arcs, st.best_path(scores, lengths, copies, on_infeasible="inf").arcs)
    assert torch.equal(st.posteriors(scores, lengths, fsa, on_infeasible="mask"), shared[1])
    assert torch.equal(st.posteriors(scores, lengths, copies, on_infeasible="mask"), copied[1])


def test_the_weights_of_a_shared_automaton_gather_what_those_of_copies_get() -> None:
    random = np.random.default_rng(1)
    fsa = random_fsa(random, states=5, arcs=20, labels=4, forbidden=0.0)
    scores, lengths = random_scores(random, 3, 8, 4), torch.tensor([8, 5, 6])
    weights = fsa.weights.clone().requires_grad_()
    shared = Fsa(
        fsa.arcs,
        weights,
        num_states=fsa.num_states,
        start=fsa.start,
        final=(fsa.final_states, fsa.final_weights),
    )
    (found,) = torch.autograd.grad(st.full_sum(scores, lengths, shared).sum(), weights)
    copies = FsaBatch.from_list([fsa] * 3)
    many = copies.weights.clone().requires_grad_()
    (expected,) = torch.autograd.grad(st.full_sum(scores, lengths, copies.with_weights(many)).sum(), many)
    torch.testing.assert_close(found, expected.view(3, -1).sum(dim=0), rtol=1e-6, atol=1e-6)


@quick
@given(seed=seeds, name=hs.sampled_from(["ctc", "hmm", "rna"]))
def test_a_constant_added_to_a_frame(seed: int, name: str) -> None:
    """Posteriors stay, the value moves by the constants."""
    scores, lengths, graphs = random_topology(name, seed, dtype=torch.float64)
    constant = 50 * random_scores(np.random.default_rng(seed), *scores.shape[:2], 1, dtype=torch.float64)
    value, gradient = scores_gradient(lambda x: st.full_sum(x, lengths, graphs), scores)
    moved, gradient_moved = scores_gradient(lambda x: st.full_sum(x, lengths, graphs), scores + constant)
    inside = torch.arange(scores.shape[1]) < lengths[:, None]
    total = (constant[..., 0] * inside).sum(dim=1)
    torch.testing.assert_close(moved, value + total, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(gradient_moved, gradient, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("offset", [1e6, -1e6, 3e7, -3e7, 1e30, -1e30])
def test_huge_offsets_of_the_scores(offset: float) -> None:
    """In double precision what is left of the scores beside the offset still decides; 1e30 leaves none of it."""
    scores, targets, lengths, target_lengths = random_ctc_batch(5, dtype=torch.float64)
    moved = scores + offset
    small = moved - offset
    graphs = st.fsa.ctc(targets, target_lengths)
    expected = scores_gradient(lambda x: st.full_sum(x, lengths, graphs), small)
    found = scores_gradient(lambda x: st.full_sum(x, lengths, graphs), moved)
    loss = scores_gradient(lambda x: st.ctc_loss(x, targets, lengths, target_lengths), moved)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(loss[1], -expected[1], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found[0], expected[0] + offset * lengths.double(), rtol=1e-12, atol=1e-6)
    torch.testing.assert_close(loss[0], -found[0], rtol=1e-12, atol=1e-6)
    normalized = scores_gradient(
        lambda x: st.ctc_loss(x, targets, lengths, target_lengths, normalize=True), moved
    )
    plain = scores_gradient(lambda x: st.ctc_loss(x, targets, lengths, target_lengths, normalize=True), small)
    torch.testing.assert_close(normalized[1], plain[1], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(normalized[0], plain[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("offset", [256.0, -4096.0, 2.0**20, -(2.0**20)])
def test_offsets_that_single_precision_holds_exactly(offset: float) -> None:
    """Scores are multiples of 1/8, so that nothing is lost in the sum."""
    scores, targets, lengths, target_lengths = random_ctc_batch(6)
    scores = (scores * 8).round() / 8
    graphs = st.fsa.ctc(targets, target_lengths)
    _, expected = scores_gradient(lambda x: st.full_sum(x, lengths, graphs), scores)
    _, found = scores_gradient(lambda x: st.full_sum(x, lengths, graphs), scores + offset)
    _, loss = scores_gradient(lambda x: st.ctc_loss(x, targets, lengths, target_lengths), scores + offset)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(loss, -expected, rtol=0, atol=2e-6)


def beside_a_huge_score(large: float) -> tuple[float, float]:
    """Full sum of the one path of an automaton whose other labels hold a huge score, and what it must be."""
    graphs = st.fsa.linear([[0, 1, 2, 3, 4]], [5])
    scores = random_scores(np.random.default_rng(4), 1, 5, 5)
    expected = scores[0].double().diagonal().sum().item()
    scores[0, 2, 4] = large
    return st.full_sum(scores, torch.tensor([5]), graphs, on_infeasible="inf").item(), expected


@pytest.mark.parametrize("large", [3e3, 3e4, 3e5, 1e7])
def test_a_huge_score_that_no_path_reaches(large: float) -> None:
    """It is the largest one of its frame all the same; the others keep their digits beside it."""
    found, expected = beside_a_huge_score(large)
    assert found == pytest.approx(expected, abs=1e-6)


def test_scores_out_of_range_below_the_largest_of_their_frame_are_probability_zero() -> None:
    found, _ = beside_a_huge_score(1e30)
    assert found == -np.inf


@pytest.mark.parametrize("offset", [1e3, -1e3, 1e6, -1e6, 1e7, -1e7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_constant_added_to_all_arc_weights(offset: float, dtype: torch.dtype) -> None:
    """Every path of T frames has T arcs: posteriors stay, however long the utterance."""
    frames = 300
    targets = np.random.default_rng(2).integers(1, 6, size=(1, 20))
    graphs = st.fsa.ctc(targets, [20])
    lengths = torch.tensor([frames])
    scores = random_scores(np.random.default_rng(3), 1, frames, 6, dtype=dtype)
    moved = graphs.with_weights(torch.full_like(graphs.weights, offset, dtype=torch.float64))
    value, expected = scores_gradient(lambda x: st.full_sum(x, lengths, graphs), scores)
    shifted, found = scores_gradient(lambda x: st.full_sum(x, lengths, moved), scores)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)
    torch.testing.assert_close(shifted.double(), value.double() + frames * offset, rtol=1e-7, atol=0)
