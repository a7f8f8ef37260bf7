"""Gradients written into memory of the caller's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import seqtrain as st
from seqtrain.errors import DerivativeError, DtypeError, ShapeError
from tests.ops.examples import DTYPES, offsets_of, packed_rows, random_ctc_batch, random_topology
from tests.ops.gradient import gradient

Function = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
NAMES = ("ctc", "normalized ctc", "full sum", "packed ctc", "packed full sum")


def example(name: str, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, Function]:
    """Scores and a function of them and of the memory for their gradient."""
    if name.endswith("full sum"):
        scores, lengths, graphs = random_topology("hmm", 1, dtype=dtype)
        if name == "full sum":
            return scores, lambda x, out: st.full_sum(x, lengths, graphs, gradient_out=out)
        offsets = offsets_of(lengths)
        return packed_rows(scores, lengths), lambda x, out: st.full_sum(
            st.Packed(x, offsets), lengths, graphs, gradient_out=out
        )
    scores, targets, lengths, target_lengths = random_ctc_batch(1, dtype=dtype)
    if name == "packed ctc":
        offsets = offsets_of(lengths)
        return packed_rows(scores, lengths), lambda x, out: st.ctc_loss(
            st.Packed(x, offsets), targets, lengths, target_lengths, normalize=True, gradient_out=out
        )
    return scores, lambda x, out: st.ctc_loss(
        x, targets, lengths, target_lengths, normalize=name == "normalized ctc", gradient_out=out
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_memory_that_is_reused(name: str, dtype: torch.dtype) -> None:
    """What stands in it, NaN even, doesn't matter; the gradient is this very memory."""
    scores, function = example(name, dtype)
    leaf = scores.requires_grad_()
    expected = gradient(function(leaf, None), leaf)
    memory = torch.full_like(expected, torch.nan)
    for _ in range(3):
        found = gradient(function(leaf, memory), leaf)
        assert found.data_ptr() == memory.data_ptr()
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_in_place_of_the_scores(name: str, dtype: torch.dtype) -> None:
    scores, function = example(name, dtype)
    leaf = scores.requires_grad_()
    expected = gradient(function(leaf, None), leaf)
    found = gradient(function(leaf, leaf.detach()), leaf)
    assert found.data_ptr() == leaf.data_ptr()
    assert torch.equal(found, expected)
    assert torch.equal(leaf.detach(), expected)


@pytest.mark.parametrize("name", NAMES)
def test_memory_of_another_layout(name: str) -> None:
    scores, function = example(name)
    leaf = scores.requires_grad_()
    expected = gradient(function(leaf, None), leaf)
    memory = torch.empty(*scores.shape[:-1], 2 * scores.shape[-1])[..., ::2]
    assert torch.equal(gradient(function(leaf, memory), leaf), expected)


@pytest.mark.parametrize("name", NAMES)
def test_it_excludes_create_graph(name: str) -> None:
    scores, function = example(name)
    leaf = scores.requires_grad_()
    with pytest.raises(DerivativeError, match="create_graph=True and gradient_out exclude each other"):
        torch.autograd.grad(function(leaf, torch.empty_like(scores)).sum(), leaf, create_graph=True)


@pytest.mark.parametrize("name", NAMES)
def test_memory_that_is_not_like_the_scores(name: str) -> None:
    scores, function = example(name)
    with pytest.raises(ShapeError, match="gradient_out must have the scores' shape") as error:
        function(scores, torch.empty(3))
    assert error.value.argument == "gradient_out"
    with pytest.raises(DtypeError, match=r"gradient_out must have the scores' dtype torch\.float32, got"):
        function(scores, torch.empty_like(scores, dtype=torch.float64))
    overlapping = torch.empty(1).expand(scores.shape)
    with pytest.raises(ShapeError, match="gradient_out has several elements in one place"):
        function(scores, overlapping)
    with pytest.raises(DtypeError, match=r"gradient_out must be a torch\.Tensor, got list"):
        function(scores, [0.0])  # type: ignore[arg-type]  # this is what is tested


@pytest.mark.parametrize("name", NAMES)
def test_memory_that_overlaps_the_scores(name: str) -> None:
    scores, function = example(name)
    larger = torch.empty(scores.numel() + 1)
    shifted = larger[1:].view(scores.shape)
    given = larger[:-1].view(scores.shape).copy_(scores)
    with pytest.raises(ShapeError, match="lies in the scores' memory without being the scores"):
        function(given, shifted)


@pytest.mark.parametrize("name", NAMES)
def test_autograd_learns_that_the_scores_were_overwritten(name: str) -> None:
    """Whoever saved them for a backward of their own is refused instead of misled."""
    scores, function = example(name)
    leaf = scores.requires_grad_()
    hidden = leaf * 2
    saved = hidden.square().sum()  # its backward runs after the loss's, which was made later
    value = function(hidden, hidden.detach()).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(saved + value, leaf)


def test_a_weight_gradient_beside_it() -> None:
    scores, lengths, graphs = random_topology("hmm", 2)
    weights = graphs.weights.clone().requires_grad_()
    leaf = scores.requires_grad_()
    memory = torch.empty_like(scores)
    value = st.full_sum(leaf, lengths, graphs.with_weights(weights), gradient_out=memory)
    found = torch.autograd.grad(value.sum(), (leaf, weights))
    value = st.full_sum(leaf, lengths, graphs.with_weights(weights))
    expected = torch.autograd.grad(value.sum(), (leaf, weights))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
