"""The second derivative of CTC: that of the full sum over its automata.

Each path takes one label a frame, so that with log-softmax inside (p, a softmax a frame)

    loss(x) = -L(x) + Σ_t log Σ_l exp x(t, l)
    its Hessian times v = -(Hessian of L) v + p ⊙ (v - Σ_l p v), frame by frame

and without it the loss is -L. L and its Hessian: `seqtrain.reference.full_sum_tangents`. The operator knows no
automata, so its derivative is registered here, where both meet.
"""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.errors import DerivativeError
from seqtrain.fsa import ctc
from seqtrain.ops.arguments import arithmetic_dtype
from seqtrain.ops.full_sum_gradient import second_derivative
from seqtrain.ops.library import LIBRARY
from seqtrain.torch_versions import register_autograd

__all__: list[str] = []


def _save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    grad_loss, scores, offsets, targets, lengths, target_lengths, _, _, status, blank, normalize, size, _ = (
        inputs
    )
    ctx.save_for_backward(grad_loss, scores, offsets, targets, lengths, target_lengths, status)
    ctx.blank, ctx.normalize, ctx.size = blank, normalize, size


def _frames_with_a_path(
    scores: torch.Tensor, offsets: torch.Tensor | None, lengths: torch.Tensor, status: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which frames count, and the utterance of each: (B, T) or (ΣT,) both."""
    if offsets is not None:
        utterance = torch.arange(len(lengths)).repeat_interleave(offsets[1:] - offsets[:-1])
        return (status == 0)[utterance], utterance
    utterance = torch.arange(len(lengths))[:, None].expand(scores.shape[:2])
    inside = torch.arange(scores.shape[1]) < lengths[:, None]
    return inside & (status == 0)[:, None], utterance


def _differentiate(ctx: Any, tangent: torch.Tensor) -> tuple[Any, ...]:
    grad_loss, scores, offsets, targets, lengths, target_lengths, status = ctx.saved_tensors
    if list(scores.shape) != list(ctx.size):
        raise DerivativeError("ctc_loss has no second derivative in compiled code")
    graphs = ctc(targets, target_lengths, blank=ctx.blank)
    automata = (
        graphs.arcs, graphs.weights, graphs.arc_offsets, graphs.final_states, graphs.final_weights,
        graphs.final_offsets, graphs.starts, graphs.num_states,
    )  # fmt: skip
    dtype = arithmetic_dtype(scores)
    x, v = scores.to(dtype), tangent.to(dtype)
    slope, product, _, _ = second_derivative(
        grad_loss, (x, offsets, lengths, *automata), (v, None, None), status, True, False
    )
    slope, product = -slope, -(product if product is not None else torch.zeros_like(x))
    if ctx.normalize:
        counts, utterance = _frames_with_a_path(x, offsets, lengths, status)
        p = x.softmax(-1)
        mean = (p * v).sum(-1)
        slope = slope.index_add(
            0, utterance.flatten(), torch.where(counts, mean, 0.0).flatten().to(slope.dtype)
        )
        weight = grad_loss.to(dtype)[utterance][..., None]
        product = product + torch.where(counts[..., None], weight * p * (v - mean[..., None]), 0.0)
    return slope.to(grad_loss.dtype), product.to(scores.dtype), *(None,) * 11


register_autograd("seqtrain::ctc_loss_backward", _differentiate, setup_context=_save, library=LIBRARY)
