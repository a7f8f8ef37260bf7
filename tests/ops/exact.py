"""Comparison of the operators with `seqtrain.reference`, utterance by utterance."""

from __future__ import annotations

import numpy as np
import torch

import seqtrain as st
from seqtrain import reference
from seqtrain.fsa import Fsa, FsaBatch
from tests.ops.examples import CtcBatch
from tests.ops.gradient import gradient

# Largest error of a posterior or a loss gradient of single-precision arithmetic on a few dozen frames; what rounding to
# the dtype of the scores adds is relative.
_SINGLE, _DOUBLE = 2e-6, 1e-13


def close(found: torch.Tensor, expected: np.ndarray | float, *, absolute: float, relative: float) -> None:
    """Asserts |found - expected| <= absolute + relative · |expected|, infinities alike."""
    np.testing.assert_allclose(
        found.detach().double().numpy(), np.asarray(expected), rtol=relative, atol=absolute
    )


def tolerance(dtype: torch.dtype) -> tuple[float, float]:
    """(absolute, relative) of gradients in a dtype."""
    single = _DOUBLE if dtype == torch.float64 else _SINGLE
    return single, max(torch.finfo(dtype).eps, single)


def trainable(fsa: FsaBatch | Fsa) -> tuple[FsaBatch | Fsa, torch.Tensor, torch.Tensor]:
    """The automata with weights that are leaves requiring grad, and these weights."""
    weights = fsa.weights.detach().clone().requires_grad_()
    final_weights = fsa.final_weights.detach().clone().requires_grad_()
    if isinstance(fsa, FsaBatch):
        return fsa.with_weights(weights, final_weights), weights, final_weights
    copy = Fsa(
        fsa.arcs,
        weights,
        num_states=fsa.num_states,
        start=fsa.start,
        final=(fsa.final_states, final_weights),
    )
    return copy, weights, final_weights


def frames_of(scores: torch.Tensor, b: int, length: int) -> np.ndarray:
    """(T, V) float64 frames of an utterance."""
    return scores[b, :length].detach().double().numpy()


def assert_full_sum_exact(scores: torch.Tensor, lengths: torch.Tensor, fsa: FsaBatch | Fsa) -> None:
    """Value and gradients to scores, arc weights and final weights, each utterance with a weight of its own."""
    leaf = scores.detach().clone().requires_grad_()
    graphs, weights, final_weights = trainable(fsa)
    value = st.full_sum(leaf, lengths, graphs, on_infeasible="inf")
    weight = torch.linspace(0.5, 2.0, len(lengths), dtype=value.dtype)
    leaf_gradient, weights_gradient, finals_gradient = torch.autograd.grad(
        value, (leaf, weights, final_weights), weight
    )

    to_scores = np.zeros(scores.shape)
    to_weights, to_finals = np.zeros(len(weights)), np.zeros(len(final_weights))
    for b, length in enumerate(lengths.tolist()):
        single = fsa[b] if isinstance(fsa, FsaBatch) else fsa
        expected = reference.full_sum_gradients(frames_of(scores, b, length), single)
        to_scores[b, :length] = weight[b].item() * expected.scores
        arcs, finals = slice(None), slice(None)
        if isinstance(fsa, FsaBatch):
            arcs = slice(*fsa.arc_offsets[b : b + 2].tolist())
            finals = slice(*fsa.final_offsets[b : b + 2].tolist())
        to_weights[arcs] += weight[b].item() * expected.weights
        to_finals[finals] += weight[b].item() * expected.final_weights
        small = _DOUBLE if scores.dtype == torch.float64 else _SINGLE
        close(value[b], expected.score, absolute=small, relative=small)

    absolute, relative = tolerance(scores.dtype)
    assert leaf_gradient.dtype == scores.dtype
    close(leaf_gradient, to_scores, absolute=2 * absolute, relative=relative)
    absolute, relative = tolerance(value.dtype)
    close(weights_gradient, to_weights, absolute=2 * absolute, relative=relative)
    close(finals_gradient, to_finals, absolute=2 * absolute, relative=relative)


def assert_leaky_exact(
    scores: torch.Tensor, lengths: torch.Tensor, fsa: Fsa, distribution: np.ndarray
) -> None:
    """Value and gradients of a sum that leaks."""
    leaf = scores.detach().clone().requires_grad_()
    graph, weights, final_weights = trainable(fsa)
    assert isinstance(graph, Fsa)
    value = st.leaky_full_sum(
        leaf, lengths, graph, leak=0.1, distribution=torch.from_numpy(distribution), on_infeasible="inf"
    )
    found = torch.autograd.grad(value.sum(), (leaf, weights, final_weights))
    to_weights, to_finals = np.zeros(len(weights)), np.zeros(len(final_weights))
    absolute, relative = tolerance(scores.dtype)
    single, _ = tolerance(value.dtype)
    for b, length in enumerate(lengths.tolist()):
        expected = reference.leaky_full_sum_gradients(
            frames_of(scores, b, length), fsa, leak=0.1, distribution=distribution
        )
        close(value[b], expected.score, absolute=single, relative=single)
        close(found[0][b, :length], expected.scores, absolute=2 * absolute, relative=relative)
        assert not found[0][b, length:].any()
        to_weights += expected.weights
        to_finals += expected.final_weights
    single, relative = tolerance(weights.dtype if scores.dtype == torch.float64 else value.dtype)
    close(found[1], to_weights, absolute=10 * single, relative=relative)
    close(found[2], to_finals, absolute=10 * single, relative=relative)


def assert_best_path_exact(scores: torch.Tensor, lengths: torch.Tensor, fsa: FsaBatch | Fsa) -> None:
    """Score, labels, states and arcs are the reference's bit for bit."""
    found = st.best_path(scores, lengths, fsa, on_infeasible="inf")
    for b, length in enumerate(lengths.tolist()):
        single = fsa[b] if isinstance(fsa, FsaBatch) else fsa
        expected = reference.best_path(frames_of(scores, b, length), single)
        assert found.score[b] == torch.tensor(expected.score, dtype=torch.float64).to(found.score.dtype)
        for name in ("labels", "states", "arcs"):
            rows = getattr(found, name)
            assert rows[b, :length].tolist() == getattr(expected, name).tolist()
            assert (rows[b, length:] == -1).all()


def assert_posteriors_exact(scores: torch.Tensor, lengths: torch.Tensor, fsa: FsaBatch | Fsa) -> None:
    """Posteriors, and zero past the end."""
    found = st.posteriors(scores, lengths, fsa, on_infeasible="mask")
    absolute, relative = tolerance(scores.dtype)
    assert found.dtype == scores.dtype
    for b, length in enumerate(lengths.tolist()):
        single = fsa[b] if isinstance(fsa, FsaBatch) else fsa
        expected = reference.posteriors(frames_of(scores, b, length), single)
        close(found[b, :length], expected, absolute=absolute, relative=relative)
        assert not found[b, length:].any()


def assert_ctc_exact(batch: CtcBatch, *, normalize: bool, blank: int = 0) -> None:
    """Loss and gradient, each utterance with a weight of its own."""
    scores, targets, lengths, target_lengths = batch
    leaf = scores.detach().clone().requires_grad_()
    loss = st.ctc_loss(
        leaf, targets, lengths, target_lengths, blank=blank, normalize=normalize, on_infeasible="inf"
    )
    weight = torch.linspace(0.5, 2.0, len(lengths), dtype=loss.dtype)
    found = gradient(loss, leaf, weight)
    assert found.dtype == scores.dtype
    absolute, relative = tolerance(scores.dtype)
    small = _DOUBLE if scores.dtype == torch.float64 else _SINGLE
    for b, (length, count) in enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True)):
        expected = reference.ctc_loss(
            frames_of(scores, b, length), targets[b, :count].tolist(), blank=blank, normalize=normalize
        )
        close(loss[b], expected.loss, absolute=small, relative=small)
        to_scores = weight[b].item() * expected.gradient
        close(found[b, :length], to_scores, absolute=2 * absolute, relative=relative)
        assert not found[b, length:].any()
