"""The gradient of a weighted loss is the weighted gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from tests.fsa.strategies import quick
from tests.ops.examples import DTYPES, random_ctc_batch, random_topology
from tests.ops.gradient import gradient

Function = Callable[[torch.Tensor], torch.Tensor]


def example(name: str, seed: int, dtype: torch.dtype) -> tuple[torch.Tensor, Function]:
    """Scores and a function of them with a value for each utterance."""
    if name == "full sum":
        scores, lengths, graphs = random_topology("hmm", seed, dtype=dtype)
        return scores, lambda x: st.full_sum(x, lengths, graphs)
    scores, *rest = random_ctc_batch(seed, dtype=dtype)
    return scores, lambda x: st.ctc_loss(x, *rest, normalize=name == "normalized ctc")


names = hs.sampled_from(["ctc", "normalized ctc", "full sum"])


@quick
@given(name=names, seed=hs.integers(0, 2**32), dtype=hs.sampled_from(DTYPES[2:]))
def test_twice_the_loss_has_twice_the_gradient(name: str, seed: int, dtype: torch.dtype) -> None:
    """Bit for bit: doubling is exact."""
    scores, function = example(name, seed, dtype)
    leaf = scores.requires_grad_()
    once = gradient(function(leaf).sum(), leaf)
    twice = gradient(2 * function(leaf).sum(), leaf)
    assert torch.equal(2 * once, twice)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("name", ["ctc", "normalized ctc", "full sum"])
def test_twice_the_loss_of_half_precision(name: str, dtype: torch.dtype) -> None:
    """Bit for bit above the subnormal numbers of the gradient's dtype, where doubling isn't exact."""
    scores, function = example(name, 0, dtype)
    leaf = scores.requires_grad_()
    once = gradient(function(leaf).sum(), leaf)
    twice = gradient(2 * function(leaf).sum(), leaf)
    normal = once.abs() >= torch.finfo(dtype).smallest_normal
    assert torch.equal((2 * once)[normal], twice[normal])
    assert (2 * once - twice)[~normal].abs().max() <= torch.finfo(dtype).smallest_normal


@quick
@given(name=names, seed=hs.integers(0, 2**32))
def test_each_utterance_has_a_weight_of_its_own(name: str, seed: int) -> None:
    scores, function = example(name, seed, torch.float32)
    leaf = scores.requires_grad_()
    weight = torch.tensor([2.0**k for k in range(-2, len(scores) - 2)])
    expected = gradient(function(leaf), leaf) * weight[:, None, None]
    found = gradient(function(leaf), leaf, weight)
    # Kernels have no subnormal numbers.
    smallest = torch.finfo(torch.float32).smallest_normal
    normal = expected.abs() >= smallest
    assert torch.equal(found[normal], expected[normal])
    assert ((found - expected)[~normal].abs() <= smallest).all()


@quick
@given(name=names, seed=hs.integers(0, 2**32))
def test_a_weight_of_zero_leaves_no_trace(name: str, seed: int) -> None:
    scores, function = example(name, seed, torch.float32)
    leaf = scores.requires_grad_()
    weight = torch.ones(len(scores))
    weight[1] = 0.0
    found = gradient(function(leaf), leaf, weight)
    assert not found[1].any()
    assert torch.equal(found[0], gradient(function(leaf), leaf)[0])


def test_negative_and_expanded_weights() -> None:
    scores, function = example("ctc", 3, torch.float32)
    leaf = scores.requires_grad_()
    plain = gradient(function(leaf), leaf)
    assert torch.equal(-plain, gradient(function(leaf), leaf, torch.tensor(-1.0).expand(len(scores))))


def test_prior_subtracted_and_scaled_scores_are_differentiated_exactly() -> None:
    """The chain rule through a · log-softmax(x) - b · log p, not a formula for log-probabilities."""
    scores, lengths, graphs = random_topology("hmm", 4, dtype=torch.float64)
    prior = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).log_softmax(0)

    def value(x: torch.Tensor) -> torch.Tensor:
        return st.full_sum(0.3 * x.log_softmax(-1) - 0.7 * prior, lengths, graphs)

    leaf = scores.requires_grad_()
    found = gradient(value(leaf), leaf)
    with torch.no_grad():
        gamma = st.posteriors(0.3 * scores.log_softmax(-1) - 0.7 * prior, lengths, graphs)
        expected = 0.3 * (gamma - scores.softmax(-1) * gamma.sum(-1, keepdim=True))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
