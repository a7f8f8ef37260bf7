"""Errors of long utterances in single precision, against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain import reference
from seqtrain.fsa import Fsa, FsaBatch, Transitions, hmm
from tests.ops.examples import random_scores
from tests.ops.gradient import scores_gradient

FRAMES, TARGETS = 1500, 200


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("scale", "largest"), [(1.0, 5e-6), (60.0, 5e-5)])
def test_ctc(scale: float, largest: float, normalize: bool) -> None:
    random = np.random.default_rng(int(scale))
    labels = 80
    scores = random_scores(random, 1, FRAMES, labels, scale=scale)
    targets = random.integers(1, labels, size=(1, TARGETS))
    loss, gradient = scores_gradient(
        lambda x: st.ctc_loss(
            x,
            torch.from_numpy(targets),
            torch.tensor([FRAMES]),
            torch.tensor([TARGETS]),
            normalize=normalize,
        ),
        scores,
    )
    expected = reference.ctc_loss(scores[0].double().numpy(), targets[0], normalize=normalize)
    assert loss.item() == pytest.approx(expected.loss, rel=1e-6)
    assert np.abs(gradient[0].double().numpy() - expected.gradient).max() <= largest


@pytest.mark.parametrize(("scale", "largest"), [(1.0, 5e-6), (60.0, 5e-5)])
def test_hidden_markov_model(scale: float, largest: float) -> None:
    random = np.random.default_rng(3)
    weights = Transitions.from_probabilities(loop=0.6, skip=0.05)
    targets = random.integers(0, 30, size=(1, 120))
    graphs = hmm(targets, [120], states_per_label=3, transitions=weights)
    scores = random_scores(random, 1, FRAMES, 90, scale=scale)
    value, gradient = scores_gradient(lambda x: st.full_sum(x, torch.tensor([FRAMES]), graphs), scores)
    expected = reference.full_sum_gradients(scores[0].double().numpy(), graphs[0])
    assert value.item() == pytest.approx(expected.score, rel=1e-6)
    assert np.abs(gradient[0].double().numpy() - expected.scores).max() <= largest


def test_arc_weights_of_a_long_utterance() -> None:
    """Expected counts grow with the utterance, their relative error doesn't."""
    random = np.random.default_rng(4)
    graphs = hmm(random.integers(0, 9, size=(1, 40)), [40], transitions=Transitions(loop=-0.2, forward=-1.7))
    weights = graphs.weights.clone().requires_grad_()
    scores = random_scores(random, 1, FRAMES, 9)
    value = st.full_sum(scores, torch.tensor([FRAMES]), graphs.with_weights(weights))
    (gradient,) = torch.autograd.grad(value.sum(), weights)
    expected = reference.full_sum_gradients(scores[0].double().numpy(), graphs[0])
    np.testing.assert_allclose(gradient.double().numpy(), expected.weights, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("dtype", "spread"),
    [(torch.float32, spread) for spread in (40.0, 41.5, 41.7, 43.0, 85.0, 90.0, 400.0)]
    + [(torch.float64, spread) for spread in (41.5, 277.0, 278.0, 700.0, 800.0, 4000.0)],
    ids=str,
)
def test_scores_so_far_apart_that_emissions_need_exponents(dtype: torch.dtype, spread: float) -> None:
    """Of two equally good ways one falls behind by `spread` and makes it up; they meet before and after."""
    fsa = Fsa(
        [[0, 1, 2], [1, 2, 0], [1, 3, 1], [2, 2, 0], [3, 3, 1], [2, 4, 0], [3, 4, 1], [4, 4, 2]],
        final={4: 0.0},
    )
    scores = torch.zeros(1, 5, 3, dtype=dtype)
    scores[0, 1, 1], scores[0, 2, 1] = -spread, spread
    weights = torch.zeros(8, dtype=dtype).requires_grad_()
    leaf = scores.clone().requires_grad_()
    value = st.full_sum(leaf, torch.tensor([5]), FsaBatch.from_list([fsa]).with_weights(weights))
    gradient, counts = torch.autograd.grad(value.sum(), (leaf, weights))
    expected = reference.full_sum_gradients(scores[0].double().numpy(), fsa)
    error = 1e-6 if dtype == torch.float32 else 1e-12
    assert value.item() == pytest.approx(expected.score, rel=error, abs=error)
    np.testing.assert_allclose(gradient[0].double().numpy(), expected.scores, rtol=error, atol=error)
    np.testing.assert_allclose(counts.double().numpy(), expected.weights, rtol=error, atol=error)
