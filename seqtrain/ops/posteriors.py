"""Dense occupancies of labels as an operator: the gradient of `full_sum`, whose own is therefore a second derivative.

posteriors(scores (B, T, V) | (ΣT, V), offsets (B + 1,) | None, lengths (B,), <automata>, …)
    → posteriors like scores, value (B,), status (B,)
"""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.errors import DerivativeError
from seqtrain.ops import arguments
from seqtrain.ops.automata import SCHEMA
from seqtrain.ops.full_sum import forward as full_sum_forward
from seqtrain.ops.full_sum_gradient import second_derivative
from seqtrain.ops.library import LIBRARY, register
from seqtrain.ops.occupancies import scores_backward as scatter
from seqtrain.torch_versions import register_autograd

__all__ = ["posteriors"]


def _forward(
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    lengths: torch.Tensor,
    arcs: torch.Tensor,
    weights: torch.Tensor,
    arc_offsets: torch.Tensor,
    final_states: torch.Tensor,
    final_weights: torch.Tensor,
    final_offsets: torch.Tensor,
    starts: torch.Tensor,
    num_states: torch.Tensor,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    value, occupancies, columns, _, _, status = full_sum_forward(
        scores, offsets, lengths, arcs, weights, arc_offsets, final_states, final_weights, final_offsets,
        starts, num_states, None, None, True, False, on_infeasible, count_handle,
    )  # fmt: skip
    size, stride = arguments.gradient_layout(scores)
    dense = scatter(
        torch.ones(value.shape, dtype=torch.float64), scores, weights, offsets, lengths, occupancies, columns,
        status, size, stride,
    )  # fmt: skip
    return dense, value, status


def _fake(
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    lengths: torch.Tensor,
    arcs: torch.Tensor,
    weights: torch.Tensor,
    arc_offsets: torch.Tensor,
    final_states: torch.Tensor,
    final_weights: torch.Tensor,
    final_offsets: torch.Tensor,
    starts: torch.Tensor,
    num_states: torch.Tensor,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch = arguments.batch_size(scores, offsets)
    size, stride = arguments.gradient_layout(scores)
    return (
        scores.new_empty_strided(size, stride),
        scores.new_empty((batch,), dtype=arguments.value_dtype(scores)),
        scores.new_empty((batch,), dtype=torch.int64),
    )


_NAME = register(
    f"posteriors(Tensor scores, Tensor? offsets, Tensor lengths, {SCHEMA}, str on_infeasible, int count_handle) "
    "-> (Tensor posteriors, Tensor value, Tensor status)",
    cpu=_forward,
    fake=_fake,
)

# Positions of the inputs that have a gradient.
_SCORES, _WEIGHTS, _FINAL_WEIGHTS, _INPUTS = 0, 4, 7, 13


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:11], output[2])


def _differentiate(
    ctx: Any, tangent: torch.Tensor | None, grad_value: torch.Tensor | None, _: torch.Tensor | None
) -> tuple[Any, ...]:
    if grad_value is not None:
        raise DerivativeError("the value that posteriors returns beside them has no derivative: use full_sum")
    gradients: list[torch.Tensor | None] = [None] * _INPUTS
    if tangent is None:
        return tuple(gradients)
    *inputs, status = ctx.saved_tensors
    needed = ctx.needs_input_grad
    ones = tangent.new_ones(status.shape, dtype=torch.float64)
    _, *products = second_derivative(
        ones, tuple(inputs), (tangent, None, None), status,
        needed[_SCORES], needed[_WEIGHTS] or needed[_FINAL_WEIGHTS],
    )  # fmt: skip
    for position, product in zip((_SCORES, _WEIGHTS, _FINAL_WEIGHTS), products, strict=True):
        if needed[position]:
            gradients[position] = product
    return tuple(gradients)


register_autograd(_NAME, _differentiate, setup_context=_save, library=LIBRARY)

posteriors = torch.ops.seqtrain.posteriors
