"""Dense occupancies of labels as an operator: what `full_sum` computes, without a gradient of its own.

posteriors(scores (B, T, V) | (ΣT, V), offsets (B + 1,) | None, lengths (B,), <automata>, …)
    → posteriors like scores, value (B,), status (B,)
"""

from __future__ import annotations

import torch

from seqtrain.ops import arguments
from seqtrain.ops.automata import SCHEMA
from seqtrain.ops.full_sum import _forward as full_sum_forward
from seqtrain.ops.full_sum import _scores_backward as scatter
from seqtrain.ops.library import refuse_derivative, register

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
refuse_derivative(_NAME, "posteriors has no derivative yet: it would be a second derivative of full_sum")

posteriors = torch.ops.seqtrain.posteriors
