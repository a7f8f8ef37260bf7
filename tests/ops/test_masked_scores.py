"""Scores of -inf, and the large negative numbers that stand for it in masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain import reference
from seqtrain.errors import InfeasibleError, NonFiniteScoresError
from seqtrain.fsa import Fsa
from tests.fsa.strategies import quick
from tests.ops.exact import (
    assert_best_path_exact,
    assert_ctc_exact,
    assert_full_sum_exact,
    assert_posteriors_exact,
)
from tests.ops.examples import DTYPES, random_batch, random_ctc_batch
from tests.ops.gradient import scores_gradient


def masked(scores: torch.Tensor, seed: int, share: float, mask: float = -torch.inf) -> torch.Tensor:
    """The scores with a share of them replaced."""
    chosen = np.random.default_rng(seed).random(tuple(scores.shape)) < share
    return scores.masked_fill(torch.from_numpy(chosen), mask)


@quick
@given(seed=hs.integers(0, 2**32), share=hs.sampled_from([0.1, 0.4]), dtype=hs.sampled_from(DTYPES))
def test_automata(seed: int, share: float, dtype: torch.dtype) -> None:
    batch = random_batch(seed, frames=5, dtype=dtype)
    batch = batch._replace(scores=masked(batch.scores, seed, share))
    assert_full_sum_exact(*batch)
    assert_posteriors_exact(*batch)
    assert_best_path_exact(*batch)


@quick
@given(seed=hs.integers(0, 2**32), share=hs.sampled_from([0.05, 0.3]), dtype=hs.sampled_from(DTYPES))
def test_raw_ctc(seed: int, share: float, dtype: torch.dtype) -> None:
    batch = random_ctc_batch(seed, frames=10, targets=3, dtype=dtype)
    assert_ctc_exact(batch._replace(scores=masked(batch.scores, seed, share)), normalize=False)


@quick
@given(seed=hs.integers(0, 2**32), share=hs.sampled_from([0.05, 0.3]), dtype=hs.sampled_from(DTYPES))
def test_normalized_ctc(seed: int, share: float, dtype: torch.dtype) -> None:
    """One label, that no target uses, keeps each frame's sum above zero."""
    batch = random_ctc_batch(seed, frames=10, targets=3, dtype=dtype)
    scores = masked(batch.scores, seed, share)
    scores = torch.cat((scores, torch.zeros_like(scores[..., :1])), dim=-1)
    assert_ctc_exact(batch._replace(scores=scores), normalize=True)


@pytest.mark.parametrize("mask", [-1e4, -1e9, -1e30, -3.4e38])
@pytest.mark.parametrize("normalize", [False, True])
def test_masks_of_labels_that_no_target_uses(mask: float, normalize: bool) -> None:
    """They are as good as -inf."""
    batch = random_ctc_batch(1, labels=7)
    wide = torch.cat((batch.scores, torch.full_like(batch.scores[..., :2], mask)), dim=-1)
    expected = scores_gradient(lambda x: st.ctc_loss(x, *batch[1:], normalize=normalize), batch.scores)
    found = scores_gradient(lambda x: st.ctc_loss(x, *batch[1:], normalize=normalize), wide)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1][..., :7], expected[1], rtol=0, atol=1e-6)
    assert not found[1][..., 7:].any()


@pytest.mark.parametrize("mask", [-1e4, -1e6, -1e7])
def test_masks_of_labels_that_some_paths_use(mask: float) -> None:
    batch = random_ctc_batch(2, frames=30, targets=4)
    scores = batch.scores.clone()
    scores[:, 3:9, 1:3] = mask
    assert_ctc_exact(batch._replace(scores=scores), normalize=False)
    assert_ctc_exact(batch._replace(scores=scores), normalize=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_frame_of_which_every_label_is_masked(dtype: torch.dtype) -> None:
    """-1e30 everywhere is a constant like any other: posteriors stay what they were."""
    batch = random_ctc_batch(3, dtype=dtype)
    scores = batch.scores.clone()
    scores[:, 4] = -1e30
    level = batch.scores.clone()
    level[:, 4] = 0.0
    found = scores_gradient(lambda x: st.ctc_loss(x, *batch[1:]), scores)
    expected = scores_gradient(lambda x: st.ctc_loss(x, *batch[1:]), level)
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-6)
    longer = batch.lengths > 4
    torch.testing.assert_close(found[0].double(), expected[0].double() + 1e30 * longer, rtol=1e-6, atol=0)


def test_a_path_through_a_mask_beside_scores_of_ordinary_size_is_no_path() -> None:
    """Relative to the frame's best used label e^-1e30 is zero; this is reported, not summed as something else."""
    scores = torch.zeros(1, 3, 2)
    scores[0, 1, 1] = -1e30
    fsa = Fsa([[0, 0, 0], [0, 1, 1], [1, 1, 1]])
    forced = Fsa([[0, 1, 1], [1, 2, 1], [2, 3, 1], [1, 1, 0]])
    assert st.full_sum(scores, torch.tensor([3]), fsa).isfinite()
    with pytest.raises(InfeasibleError, match="has probability zero"):
        st.full_sum(scores, torch.tensor([3]), forced)


def test_forbidden_by_a_large_negative_arc_weight() -> None:
    """An arc of weight -1e30 beside others is never taken."""
    arcs = [[0, 0, 0], [0, 1, 1], [0, 1, 0], [1, 1, 1]]
    scores = torch.randn(1, 6, 2, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([6])
    masked_arc = Fsa(arcs, torch.tensor([0.0, -0.5, -1e30, 0.0]))
    without = Fsa(arcs, torch.tensor([0.0, -0.5, -torch.inf, 0.0]))
    found = scores_gradient(lambda x: st.full_sum(x, lengths, masked_arc), scores)
    expected = scores_gradient(lambda x: st.full_sum(x, lengths, without), scores)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
def test_all_scores_minus_infinity(normalize: bool) -> None:
    """Raw: probability zero. Normalized: a softmax of nothing, which is an error of the scores."""
    scores = torch.full((1, 3, 4), -torch.inf)
    arguments = (scores, torch.tensor([[1]]), torch.tensor([3]), torch.tensor([1]))
    if normalize:
        with pytest.raises(NonFiniteScoresError, match="or no value above -inf\\) at frame 0"):
            st.ctc_loss(*arguments, normalize=True)
    else:
        with pytest.raises(InfeasibleError, match="probability zero"):
            st.ctc_loss(*arguments)


def test_a_path_that_dies_in_the_last_frame() -> None:
    """Everything is alive until the end: the sums of all frames before are above zero, the whole isn't."""
    scores = torch.zeros(2, 5, 3)
    scores[0, 4, 2] = -torch.inf
    graphs = st.fsa.linear([[0, 1, 0, 1, 2]] * 2, [5, 5])
    leaf = scores.requires_grad_()
    value = st.full_sum(leaf, torch.tensor([5, 5]), graphs, on_infeasible="inf")
    assert value.tolist() == [-float("inf"), 0.0]
    (gradient,) = torch.autograd.grad(value[1:].sum(), leaf)
    assert not gradient[0].any()
    assert reference.full_sum(scores[0].detach().numpy(), graphs[0]) == -np.inf
