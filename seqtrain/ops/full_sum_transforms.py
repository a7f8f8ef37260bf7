"""The full sum under torch's function transforms: `torch.func` and forward-mode derivatives.

The operators' own derivatives, which torch.library registers, are out of reach of both. These functions have reverse
and forward derivatives, and map over a further axis by a loop. They keep no occupancies: a gradient is a recursion of
its own.

    FullSum:          scores, weights, final weights → value (B,), status (B,)
    FullSumGradient:  gradient of the value, and these → gradients of the three
    FullSumTangents:  these and three tangents → slope (B,), and the Hessian times the tangents

`GRAPH` further arguments follow the weights: offsets, lengths, and the automata's arcs, arc_offsets, final_states,
final_offsets, starts, num_states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from seqtrain.errors import DerivativeError
from seqtrain.infeasible import NOT_HERE
from seqtrain.ops import arguments
from seqtrain.ops.full_sum import full_sum
from seqtrain.ops.full_sum_gradient import full_sum_gradient
from seqtrain.ops.full_sum_tangents import full_sum_tangents

__all__ = ["FullSum", "FullSumGradient", "FullSumTangents"]

GRAPH = 8

_THIRD = (
    "full_sum has no third derivative, and a slope (forward mode) has none of its own: for a Hessian take "
    "torch.func.hessian, which is forward mode over reverse mode, or reverse over reverse"
)


def _inputs(
    scores: torch.Tensor, weights: torch.Tensor, final_weights: torch.Tensor, graph: tuple[Any, ...]
) -> tuple[Any, ...]:
    """In the operators' order."""
    offsets, lengths, arcs, arc_offsets, final_states, final_offsets, starts, num_states = graph
    return (
        scores, offsets, lengths, arcs, weights, arc_offsets, final_states, final_weights, final_offsets, starts,
        num_states,
    )  # fmt: skip


def _by_loop(function: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
    """The function at each place of the mapped axis, one after the other."""
    results = [
        function(
            *(arg if dim is None else arg.select(dim, index) for arg, dim in zip(args, in_dims, strict=True))
        )
        for index in range(info.batch_size)
    ]
    stacked = tuple(torch.stack(parts) for parts in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)


class FullSumTangents(torch.autograd.Function):
    """(grad_value, scores, weights, final_weights, *graph, status, three tangents or None)."""

    @staticmethod
    def forward(
        grad_value: torch.Tensor,
        scores: torch.Tensor,
        weights: torch.Tensor,
        final_weights: torch.Tensor,
        *rest: Any,
    ) -> tuple[torch.Tensor, ...]:
        graph, (status, *tangents) = rest[:GRAPH], rest[GRAPH:]
        inputs = _inputs(scores, weights, final_weights, graph)
        layout = arguments.gradient_layout(scores)
        found: tuple[torch.Tensor, ...] = full_sum_tangents(
            grad_value, *inputs, *tangents, status, True, True, *layout
        )
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise DerivativeError(_THIRD)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise DerivativeError(_THIRD)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _by_loop(FullSumTangents.apply, info, in_dims, args)


class FullSumGradient(torch.autograd.Function):
    """(grad_value, scores, weights, final_weights, *graph, status)."""

    @staticmethod
    def forward(
        grad_value: torch.Tensor,
        scores: torch.Tensor,
        weights: torch.Tensor,
        final_weights: torch.Tensor,
        *rest: Any,
    ) -> tuple[torch.Tensor, ...]:
        graph, status = rest[:GRAPH], rest[GRAPH]
        inputs = _inputs(scores, weights, final_weights, graph)
        # Who has no path is known, and reported, already.
        _, *found, _ = full_sum(*inputs, None, None, True, True, "mask", NOT_HERE)
        layout = arguments.gradient_layout(scores)
        gradients: tuple[torch.Tensor, ...] = full_sum_gradient(
            grad_value, *inputs, *found, status, True, True, *layout
        )
        return gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *tangents: torch.Tensor | None) -> Any:
        if all(tangent is None for tangent in tangents):
            return (None,) * (GRAPH + 5)
        found = FullSumTangents.apply(*ctx.saved_tensors, *tangents)  # type: ignore[no-untyped-call]  # of torch
        return *found, *(None,) * (GRAPH + 1)

    @staticmethod
    def jvp(ctx: Any, grad_tangent: torch.Tensor | None, *tangents: Any) -> Any:
        saved, direction = ctx.saved_tensors, tangents[:3]
        products: list[torch.Tensor | None] = [None, None, None]
        if any(tangent is not None for tangent in direction):
            _, *products = FullSumTangents.apply(*saved, *direction)  # type: ignore[no-untyped-call]  # of torch
        if grad_tangent is None:
            return tuple(products)
        others = FullSumGradient.apply(grad_tangent, *saved[1:])  # type: ignore[no-untyped-call]  # of torch
        return tuple(b if a is None else a + b for a, b in zip(products, others, strict=True))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _by_loop(FullSumGradient.apply, info, in_dims, args)


class FullSum(torch.autograd.Function):
    """(scores, weights, final_weights, *graph, on_infeasible, count_handle)."""

    @staticmethod
    def forward(
        scores: torch.Tensor, weights: torch.Tensor, final_weights: torch.Tensor, *rest: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = _inputs(scores, weights, final_weights, rest[:GRAPH])
        value, *_, status = full_sum(*inputs, None, None, False, False, *rest[GRAPH:])
        return value, status

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[1])
        saved = (*inputs[: 3 + GRAPH], output[1])
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def backward(ctx: Any, grad_value: torch.Tensor | None, _: Any) -> Any:
        if grad_value is None:
            return (None,) * (GRAPH + 5)
        found = FullSumGradient.apply(grad_value, *ctx.saved_tensors)  # type: ignore[no-untyped-call]  # of torch
        return *found, *(None,) * (GRAPH + 2)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        saved = ctx.saved_tensors
        ones = torch.ones_like(saved[-1], dtype=torch.float64)
        slope, *_ = FullSumTangents.apply(ones, *saved, *tangents[:3])  # type: ignore[no-untyped-call]  # of torch
        return slope, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _by_loop(FullSum.apply, info, in_dims, args)
