"""The gradient of the full sum as an operator that can be differentiated: what `create_graph=True` records.

    full_sum_gradient(grad_value (B,), scores, offsets, lengths, <automata>, <what full_sum returned>, …)
        → gradient of the scores, of the arc weights, of the final weights; one that isn't asked for is empty

It computes what `full_sum_scores_backward` and `full_sum_weights_backward` do, which without it record nothing and keep
no scores.
"""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.errors import DerivativeError
from seqtrain.ops import arguments
from seqtrain.ops.automata import SCHEMA
from seqtrain.ops.full_sum_tangents import full_sum_tangents
from seqtrain.ops.library import LIBRARY, register
from seqtrain.ops.occupancies import scores_backward, weights_backward
from seqtrain.torch_versions import register_autograd

__all__ = ["full_sum_gradient", "second_derivative"]


def _forward(
    grad_value: torch.Tensor,
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
    occupancies: torch.Tensor,
    column_labels: torch.Tensor,
    arc_occupancies: torch.Tensor,
    final_occupancies: torch.Tensor,
    status: torch.Tensor,
    with_scores: bool,
    with_weights: bool,
    size: list[int],
    stride: list[int],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dense = (
        scores_backward(
            grad_value, scores, weights, offsets, lengths, occupancies, column_labels, status, size, stride
        )
        if with_scores
        else scores.new_empty((0,))
    )
    to_weights, to_finals = (
        weights_backward(grad_value, scores, items, found, item_offsets, status)
        if with_weights
        else items.new_empty((0,))
        for items, found, item_offsets in (
            (weights, arc_occupancies, arc_offsets),
            (final_weights, final_occupancies, final_offsets),
        )
    )
    return dense, to_weights, to_finals


def _fake(
    grad_value: torch.Tensor,
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
    occupancies: torch.Tensor,
    column_labels: torch.Tensor,
    arc_occupancies: torch.Tensor,
    final_occupancies: torch.Tensor,
    status: torch.Tensor,
    with_scores: bool,
    with_weights: bool,
    size: list[int],
    stride: list[int],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        scores.new_empty_strided(size, stride) if with_scores else scores.new_empty((0,)),
        torch.empty_like(weights) if with_weights else weights.new_empty((0,)),
        torch.empty_like(final_weights) if with_weights else final_weights.new_empty((0,)),
    )


def second_derivative(
    grad_value: torch.Tensor,
    inputs: tuple[Any, ...],
    tangents: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None],
    status: torch.Tensor,
    with_scores: bool,
    with_weights: bool,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Slope (B,), and the products of the Hessian with the tangents; None for what isn't asked for.

    `inputs` are scores, offsets, lengths and the automata's eight tensors.

    Raises:
        DerivativeError: the scores aren't on the CPU.
    """
    if inputs[0].device.type != "cpu":
        raise DerivativeError(
            f"second derivatives have a kernel for the CPU alone, and the scores are on {inputs[0].device}: pass "
            "scores.cpu()"
        )
    size, stride = arguments.gradient_layout(inputs[0])
    slope, *products = full_sum_tangents(
        grad_value, *inputs, *tangents, status, with_scores, with_weights, size, stride
    )
    wanted = (with_scores, with_weights, with_weights)
    scores, weights, finals = (
        product if want else None for product, want in zip(products, wanted, strict=True)
    )
    return slope, scores, weights, finals


_NAME = register(
    f"full_sum_gradient(Tensor grad_value, Tensor scores, Tensor? offsets, Tensor lengths, {SCHEMA}, "
    "Tensor occupancies, Tensor column_labels, Tensor arc_occupancies, Tensor final_occupancies, Tensor status, "
    "bool with_scores, bool with_weights, SymInt[] size, SymInt[] stride) "
    "-> (Tensor scores_gradient, Tensor weights_gradient, Tensor final_weights_gradient)",
    cpu=_forward,
    fake=_fake,
)

# Positions of the inputs that have a gradient.
_GRAD_VALUE, _SCORES, _WEIGHTS, _FINAL_WEIGHTS, _INPUTS = 0, 1, 5, 8, 21


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:12], inputs[16])


def _differentiate(ctx: Any, *tangents: torch.Tensor | None) -> tuple[Any, ...]:
    gradients: list[torch.Tensor | None] = [None] * _INPUTS
    if all(tangent is None for tangent in tangents):
        return tuple(gradients)
    grad_value, *inputs, status = ctx.saved_tensors
    to_scores, to_weights, to_finals = tangents
    needed = ctx.needs_input_grad
    found = second_derivative(
        grad_value, tuple(inputs), (to_scores, to_weights, to_finals), status,
        needed[_SCORES], needed[_WEIGHTS] or needed[_FINAL_WEIGHTS],
    )  # fmt: skip
    for position, gradient in zip((_GRAD_VALUE, _SCORES, _WEIGHTS, _FINAL_WEIGHTS), found, strict=True):
        if needed[position]:
            gradients[position] = gradient
    return tuple(gradients)


register_autograd(_NAME, _differentiate, setup_context=_save, library=LIBRARY)

full_sum_gradient = torch.ops.seqtrain.full_sum_gradient
