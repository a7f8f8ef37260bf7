"""The expected risk's operators on CUDA: what `seqtrain.ops.risk` does on the CPU, in three launches."""

from __future__ import annotations

import math

import torch

from seqtrain.infeasible import report_inside
from seqtrain.ops.automata import Automata
from seqtrain.ops.cuda.lattices import Risks, sweep
from seqtrain.ops.cuda.runtime import Runtime
from seqtrain.ops.lattices import Lattices
from seqtrain.ops.risk import LARGEST_WEIGHT, apply_policy, check_shapes, raise_fault, value_dtype

__all__ = ["forward", "risks_backward", "weights_backward"]

_SMALLEST_WEIGHT = -(2.0**26) * math.log(2)  # where the CPU's exponentials become 0 (csrc/recursion/number.h)


def forward(
    on: Runtime,
    arcs: torch.Tensor,
    weights: torch.Tensor,
    arc_offsets: torch.Tensor,
    final_states: torch.Tensor,
    final_weights: torch.Tensor,
    final_offsets: torch.Tensor,
    starts: torch.Tensor,
    num_states: torch.Tensor,
    risks: torch.Tensor,
    final_risks: torch.Tensor,
    with_gradient: bool,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, ...]:
    """`seqtrain::lattice_risk`."""
    automata = Automata(
        arcs, weights, arc_offsets, final_states, final_weights, final_offsets, starts, num_states
    )
    check_shapes(automata, risks, final_risks)
    dtype = value_dtype(weights, risks)
    given = Risks(
        *(r.detach().to(device=on.device, dtype=torch.float64).contiguous() for r in (risks, final_risks))
    )
    first_states = torch.cat(
        [num_states.new_zeros(1, dtype=torch.int64), num_states.to(torch.int64).cumsum(0)]
    )
    lattices = Lattices(arcs, weights, arc_offsets, first_states, final_states, final_weights, final_offsets)
    found = sweep(
        on, "lattice_risk", lattices, smallest_weight=_SMALLEST_WEIGHT, largest_weight=LARGEST_WEIGHT,
        with_gradient=with_gradient, risks=given, starts=starts,
    )  # fmt: skip
    if found.fault is not None:
        b = int(found.fault.nonzero()[0])
        raise_fault(automata, *given, b, int(found.fault[b]))
    apply_policy(found.risk, found.value, found.status, on_infeasible)
    report_inside(found.status, count_handle, on_infeasible)
    return (
        found.risk.to(dtype), found.value.to(dtype), found.arc_posteriors, found.arc_gradients,
        found.final_posteriors, found.final_gradients, found.status,
    )  # fmt: skip


def _of_items(grad: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """(B,) gradients, of each item that of its lattice."""
    return grad.to(torch.float64).repeat_interleave(offsets.diff())


def weights_backward(
    on: Runtime,
    grad_risk: torch.Tensor | None,
    grad_total: torch.Tensor | None,
    posteriors: torch.Tensor,
    gradients: torch.Tensor,
    item_offsets: torch.Tensor,
    anchor: torch.Tensor,
) -> torch.Tensor:
    """`seqtrain::lattice_risk_weights_backward`."""
    parts = [
        _of_items(grad, item_offsets) * items
        for grad, items in ((grad_risk, gradients), (grad_total, posteriors))
        if grad is not None
    ]
    return (parts[0] if len(parts) == 1 else parts[0] + parts[1]).to(anchor.dtype)


def risks_backward(
    on: Runtime,
    grad_risk: torch.Tensor,
    posteriors: torch.Tensor,
    item_offsets: torch.Tensor,
    anchor: torch.Tensor,
) -> torch.Tensor:
    """`seqtrain::lattice_risk_risks_backward`."""
    return (_of_items(grad_risk, item_offsets) * posteriors).to(anchor.dtype)
