"""The sum over the paths of lattices as an operator, with gradients to arc weights and final weights.

    lattice_total(<lattices>, with_gradient)
        → value (B,), arc_posteriors (ΣA,), final_posteriors (ΣF,) (both float64; (0,) without gradient), status (B,)

Sums run in float64 whatever the weights' type.
"""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.ops.kernels import KERNELS
from seqtrain.ops.lattices import LATTICE_SCHEMA, Lattices, check_status
from seqtrain.ops.library import LIBRARY, refuse_derivative, register
from seqtrain.torch_versions import register_autograd

__all__ = ["lattice_total", "times_posteriors"]


def _forward(
    arcs: torch.Tensor,
    weights: torch.Tensor,
    arc_offsets: torch.Tensor,
    state_offsets: torch.Tensor,
    final_states: torch.Tensor,
    final_weights: torch.Tensor,
    final_offsets: torch.Tensor,
    with_gradient: bool,
) -> tuple[torch.Tensor, ...]:
    lattices = Lattices(
        arcs, weights, arc_offsets, state_offsets, final_states, final_weights, final_offsets
    ).for_kernels()
    value = torch.zeros(lattices.size, dtype=torch.float64)
    status = torch.zeros(lattices.size, dtype=torch.int64)
    arc_posteriors = torch.empty(weights.shape if with_gradient else (0,), dtype=torch.float64)
    final_posteriors = torch.empty(final_weights.shape if with_gradient else (0,), dtype=torch.float64)
    KERNELS.lattice_total(
        lattices.argument(),
        value.data_ptr(),
        with_gradient,
        arc_posteriors.data_ptr(),
        final_posteriors.data_ptr(),
        status.data_ptr(),
        torch.get_num_threads(),
    )
    check_status(status)
    return value.to(weights.dtype), arc_posteriors, final_posteriors, status


def _fake(
    arcs: torch.Tensor,
    weights: torch.Tensor,
    arc_offsets: torch.Tensor,
    state_offsets: torch.Tensor,
    final_states: torch.Tensor,
    final_weights: torch.Tensor,
    final_offsets: torch.Tensor,
    with_gradient: bool,
) -> tuple[torch.Tensor, ...]:
    batch = arc_offsets.shape[0] - 1
    double = torch.float64
    return (
        weights.new_empty((batch,)),
        weights.new_empty(weights.shape if with_gradient else (0,), dtype=double),
        weights.new_empty(final_weights.shape if with_gradient else (0,), dtype=double),
        weights.new_empty((batch,), dtype=torch.int64),
    )


def times_posteriors(
    grad_value: torch.Tensor, weights: torch.Tensor, posteriors: torch.Tensor, offsets: torch.Tensor
) -> torch.Tensor:
    """Gradient of the utterance times the posterior of the arc or final state."""
    per_item = grad_value.to(torch.float64).repeat_interleave(offsets[1:] - offsets[:-1])
    # Where an utterance has no path all are zero, and the gradient may be anything.
    product = torch.where(posteriors == 0, 0.0, per_item * posteriors)
    return product.to(weights.dtype)


def _backward_fake(
    grad_value: torch.Tensor, weights: torch.Tensor, posteriors: torch.Tensor, offsets: torch.Tensor
) -> torch.Tensor:
    return torch.empty_like(weights)


_NAME = register(
    f"lattice_total({LATTICE_SCHEMA}, bool with_gradient) "
    "-> (Tensor value, Tensor arc_posteriors, Tensor final_posteriors, Tensor status)",
    cpu=_forward,
    fake=_fake,
)
_BACKWARD = register(
    "lattice_total_backward(Tensor grad_value, Tensor weights, Tensor posteriors, Tensor offsets) -> Tensor",
    cpu=times_posteriors,
    fake=_backward_fake,
)
refuse_derivative(_BACKWARD, "the total score of a lattice has no second derivative yet")

# Positions of the inputs that have a gradient.
_WEIGHTS, _FINAL_WEIGHTS, _INPUTS = 1, 5, 8


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    _, weights, arc_offsets, _, _, final_weights, final_offsets, _ = inputs
    _, arc_posteriors, final_posteriors, _ = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(
        weights, arc_offsets, final_weights, final_offsets, arc_posteriors, final_posteriors
    )


def _differentiate(ctx: Any, grad_value: torch.Tensor | None, *_: torch.Tensor | None) -> tuple[Any, ...]:
    gradients: list[torch.Tensor | None] = [None] * _INPUTS
    if grad_value is None:
        return tuple(gradients)
    weights, arc_offsets, final_weights, final_offsets, arc_posteriors, final_posteriors = ctx.saved_tensors
    backward = torch.ops.seqtrain.lattice_total_backward
    if ctx.needs_input_grad[_WEIGHTS]:
        gradients[_WEIGHTS] = backward(grad_value, weights, arc_posteriors, arc_offsets)
    if ctx.needs_input_grad[_FINAL_WEIGHTS]:
        gradients[_FINAL_WEIGHTS] = backward(grad_value, final_weights, final_posteriors, final_offsets)
    return tuple(gradients)


register_autograd(_NAME, _differentiate, setup_context=_save, library=LIBRARY)

lattice_total = torch.ops.seqtrain.lattice_total
