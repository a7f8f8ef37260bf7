"""The total score's operators on CUDA: what `seqtrain.ops.lattice_total` does on the CPU, in three launches."""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.ops.cuda.lattices import sweep
from seqtrain.ops.cuda.runtime import Runtime
from seqtrain.ops.lattice_total import times_posteriors
from seqtrain.ops.lattices import LARGEST_WEIGHT, Lattices, check_order, refuse_weights

__all__ = ["backward", "forward"]


def forward(
    on: Runtime,
    arcs: torch.Tensor,
    weights: torch.Tensor,
    arc_offsets: torch.Tensor,
    state_offsets: torch.Tensor,
    final_states: torch.Tensor,
    final_weights: torch.Tensor,
    final_offsets: torch.Tensor,
    with_gradient: bool,
) -> tuple[torch.Tensor, ...]:
    """`seqtrain::lattice_total`."""
    lattices = Lattices(arcs, weights, arc_offsets, state_offsets, final_states, final_weights, final_offsets)
    found = sweep(
        on, "lattice_total", lattices, smallest_weight=-LARGEST_WEIGHT, largest_weight=LARGEST_WEIGHT,
        with_gradient=with_gradient,
    )  # fmt: skip
    if found.fault is not None:
        b = int(found.fault.nonzero()[0])
        first, end = arc_offsets[b : b + 2].tolist()
        first_final, end_final = final_offsets[b : b + 2].tolist()
        first_state, end_state = state_offsets[b : b + 2].tolist()
        check_order(
            b,
            arcs[first:end],
            final_states[first_final:end_final],
            end_state - first_state,
            int(found.fault[b]),
        )
        raise refuse_weights(b)
    return found.value.to(weights.dtype), found.arc_posteriors, found.final_posteriors, found.status


def backward(on: Runtime, *inputs: Any) -> torch.Tensor:
    """`seqtrain::lattice_total_backward`."""
    return times_posteriors(*inputs)
