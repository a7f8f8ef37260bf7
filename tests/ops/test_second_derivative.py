"""Second derivatives are there, and what has none raises `DerivativeError`: none is silently zero."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import seqtrain as st
from seqtrain.errors import DerivativeError
from seqtrain.ops.full_sum_gradient import second_derivative
from tests.ops.examples import random_ctc_batch, random_topology

Function = Callable[[torch.Tensor], torch.Tensor]


def functions() -> dict[str, tuple[Function, torch.Tensor]]:
    """Scalar functions of scores that have a first derivative, with scores."""
    scores, *rest = random_ctc_batch(1, batch=2, frames=8, targets=2, labels=4)
    other, lengths, graphs = random_topology("hmm", 1, batch=2, frames=8)
    weights = graphs.weights.clone()
    return {
        "ctc": (lambda x: st.ctc_loss(x, *rest).sum(), scores),
        "normalized ctc": (lambda x: st.ctc_loss(x, *rest, normalize=True).sum(), scores),
        "full sum": (lambda x: st.full_sum(x, lengths, graphs).sum(), other),
        "arc weights": (
            lambda w: st.full_sum(other.to(w.dtype), lengths, graphs.with_weights(w)).sum(),
            weights,
        ),
    }


@pytest.fixture(params=["ctc", "normalized ctc", "full sum", "arc weights"])
def function(request: pytest.FixtureRequest) -> tuple[Function, torch.Tensor]:
    return functions()[request.param]


def test_second_derivatives_are_not_zero(function: tuple[Function, torch.Tensor]) -> None:
    """Against a difference of gradients, which also is the curvature of the loss along a line."""
    f, scores = function
    leaf = scores.double().requires_grad_()
    direction = torch.linspace(-1, 1, leaf.numel(), dtype=torch.float64).view(leaf.shape)
    (gradient,) = torch.autograd.grad(f(leaf), leaf, create_graph=True)
    (product,) = torch.autograd.grad((gradient * direction).sum(), leaf)
    moved = [(leaf + step * direction).detach().requires_grad_() for step in (-1e-5, 1e-5)]
    before, after = (torch.autograd.grad(f(point), point)[0] for point in moved)
    assert product.abs().max() > 1e-3
    torch.testing.assert_close(product, (after - before) / 2e-5, rtol=0, atol=1e-7)


def test_gradient_penalty(function: tuple[Function, torch.Tensor]) -> None:
    f, scores = function
    leaf = scores.double().requires_grad_()

    def penalized(x: torch.Tensor) -> torch.Tensor:
        (gradient,) = torch.autograd.grad(f(x), x, create_graph=True)
        return gradient.square().sum()

    assert torch.autograd.gradcheck(penalized, leaf)


def test_gradient_with_respect_to_the_outer_weight(function: tuple[Function, torch.Tensor]) -> None:
    """The derivative of the gradient in the direction of the incoming one is the gradient itself."""
    f, scores = function
    leaf = scores.double().requires_grad_()
    factor = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(factor * f(leaf), leaf, create_graph=True)
    direction = torch.linspace(-1, 1, leaf.numel(), dtype=torch.float64).view(leaf.shape)
    (slope,) = torch.autograd.grad((gradient * direction).sum(), factor)
    torch.testing.assert_close(slope, (gradient.detach() * direction).sum() / 2)


def test_third_derivatives_are_refused(function: tuple[Function, torch.Tensor]) -> None:
    f, scores = function
    leaf = scores.requires_grad_()
    (gradient,) = torch.autograd.grad(f(leaf), leaf, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), leaf, create_graph=True)
    assert second.requires_grad
    with pytest.raises(DerivativeError, match="full_sum has no third derivative"):
        torch.autograd.grad(second.sum(), leaf)


def test_create_graph_without_a_second_derivative_changes_nothing(
    function: tuple[Function, torch.Tensor],
) -> None:
    f, scores = function
    leaf = scores.requires_grad_()
    (plain,) = torch.autograd.grad(f(leaf), leaf)
    (with_graph,) = torch.autograd.grad(f(leaf), leaf, create_graph=True)
    assert torch.equal(plain, with_graph)


def test_backward_twice_gives_the_gradient_twice() -> None:
    f, scores = functions()["ctc"]
    leaf = scores.requires_grad_()
    value = f(leaf)
    first = torch.autograd.grad(value, leaf, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(value, leaf)[0])


def test_what_has_no_derivative() -> None:
    scores, lengths, graphs = random_topology("ctc", 2)
    leaf = scores.requires_grad_()
    with pytest.raises(DerivativeError, match="best_path has no derivative: train on full_sum"):
        torch.autograd.backward(st.best_path(leaf, lengths, graphs).score.sum())
    (gradient,) = torch.autograd.grad(
        st.posteriors(leaf, lengths, graphs).square().sum(), leaf, create_graph=True
    )
    with pytest.raises(DerivativeError, match="full_sum has no third derivative"):
        torch.autograd.grad(gradient.sum(), leaf)


def test_second_derivatives_are_computed_on_the_cpu_alone() -> None:
    """Where kernels run on other devices, too: a typed refusal (here of a device without values)."""
    scores = torch.empty(2, 3, 4, device="meta")
    graph = tuple(torch.empty(1) for _ in range(8))
    with pytest.raises(DerivativeError, match=r"the scores are on meta: pass scores\.cpu"):
        second_derivative(
            torch.ones(2),
            (scores, None, torch.ones(2), *graph),
            (scores, None, None),
            torch.zeros(2),
            True,
            False,
        )
