"""`torch.compile(fullgraph=True)` beside `tests/ops/test_compile.py`: gradients of posteriors, second derivatives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import seqtrain as st
from tests.ops.examples import random_ctc_batch, random_topology
from tests.ops.gradient import gradient

pytestmark = pytest.mark.torch2  # torch.compile


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """What one test compiled is no cache for the next."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_the_derivative_of_posteriors() -> None:
    scores, lengths, graphs = random_topology("hmm", 1)

    def function(x: torch.Tensor) -> torch.Tensor:
        return st.posteriors(x, lengths, graphs).square().sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    leaf = scores.requires_grad_()
    expected = gradient(function(leaf), leaf)
    assert expected.abs().max() > 1e-3
    assert torch.equal(gradient(compiled(leaf), leaf), expected)


def penalize(value: torch.Tensor, leaf: torch.Tensor) -> None:
    """Backward through a gradient."""
    (found,) = torch.autograd.grad(value, leaf, create_graph=True)
    torch.autograd.backward(value + found.square().sum())


@pytest.mark.parametrize("criterion", ["full sum", "ctc"])
def test_second_derivatives_are_refused(criterion: str) -> None:
    """By torch itself, which has none of compiled functions: not silently zero."""
    scores, lengths, graphs = random_topology("hmm", 2)
    other, *rest = random_ctc_batch(2)

    def function(x: torch.Tensor) -> torch.Tensor:
        return (st.full_sum(x, lengths, graphs) if criterion == "full sum" else st.ctc_loss(x, *rest)).sum()

    leaf = (scores if criterion == "full sum" else other).requires_grad_()
    value = torch.compile(function, fullgraph=True, backend="aot_eager")(leaf)
    with pytest.raises(RuntimeError, match=r"double backward|create_graph=False"):
        penalize(value, leaf)
