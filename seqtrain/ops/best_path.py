"""The best path through automata as an operator.

best_path(scores (B, T, V) | (ΣT, V), offsets (B + 1,) | None, lengths (B,), <automata>, max_frames, on_infeasible)
    → score (B,), labels (B, max_frames), states, arcs (both (B, max_frames)), status (B,); -1 past the end
"""

from __future__ import annotations

import torch

from seqtrain.infeasible import report_inside
from seqtrain.ops import arguments
from seqtrain.ops.automata import SCHEMA, Automata
from seqtrain.ops.full_sum import feasible
from seqtrain.ops.kernels import KERNELS
from seqtrain.ops.library import refuse_derivative, register

__all__ = ["best_path"]


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
    max_frames: int,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, ...]:
    automata = Automata(
        arcs, weights, arc_offsets, final_states, final_weights, final_offsets, starts, num_states
    ).for_kernels()
    lengths = arguments.int64(lengths)
    batch = arguments.batch_size(scores, offsets)
    status, _ = feasible(automata, scores, offsets, lengths, on_infeasible)

    value = torch.zeros(batch, dtype=torch.float64)
    labels, states, path = (torch.full((batch, max_frames), -1, dtype=torch.int64) for _ in range(3))
    if batch:
        KERNELS.best_path(
            arguments.tensor_argument(scores, offsets),
            batch,
            max_frames,
            lengths.data_ptr(),
            automata.argument(),
            value.data_ptr(),
            labels.data_ptr(),
            states.data_ptr(),
            path.data_ptr(),
            status.data_ptr(),
            torch.get_num_threads(),
        )
        arguments.check_status(value, status, lengths, on_infeasible, infinite=float("-inf"))
    report_inside(status, count_handle, on_infeasible)
    return value.to(arguments.value_dtype(scores)), labels, states, path, status


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
    max_frames: int,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, ...]:
    batch = arguments.batch_size(scores, offsets)
    place = (batch, max_frames)
    return (
        scores.new_empty((batch,), dtype=arguments.value_dtype(scores)),
        *(scores.new_empty(place, dtype=torch.int64) for _ in range(3)),
        scores.new_empty((batch,), dtype=torch.int64),
    )


_NAME = register(
    f"best_path(Tensor scores, Tensor? offsets, Tensor lengths, {SCHEMA}, SymInt max_frames, str on_infeasible, "
    "int count_handle) "
    "-> (Tensor score, Tensor labels, Tensor states, Tensor arcs, Tensor status)",
    cpu=_forward,
    fake=_fake,
)
refuse_derivative(_NAME, "best_path has no derivative: train on full_sum, or on the labels of the path")

best_path = torch.ops.seqtrain.best_path
