"""The full sum's operators on CUDA: what `seqtrain.ops.full_sum` and its neighbours do on the CPU.

The automata are laid out in host memory, where their weights are read: weights on the device are copied there, which
waits for whatever computes them. Gradients of weights are made on the device and go where the weights are.
"""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.errors import DerivativeError
from seqtrain.infeasible import report_inside
from seqtrain.ops import arguments
from seqtrain.ops.automata import Automata
from seqtrain.ops.cuda.copies import to_device
from seqtrain.ops.cuda.frames import checked_frames, frames_again
from seqtrain.ops.cuda.layout import lay_out
from seqtrain.ops.cuda.rows import Rows
from seqtrain.ops.cuda.runtime import Argument, Runtime, threads_for
from seqtrain.ops.cuda.sweep import SLOTS_AHEAD, SWEEP_THREADS, cell_bytes, state_bytes
from seqtrain.ops.full_sum import feasible
from seqtrain.ops.occupancies import weights_backward as weighted_sum

_MOST_NODES = 2
"""Of a thread."""

__all__ = [
    "forward",
    "gradient",
    "posteriors",
    "scores_backward",
    "scores_backward_into",
    "tangents",
    "weights_backward",
]


def _division(on: Runtime, columns: int, nodes: int, threads: int, real: torch.dtype) -> tuple[int, int]:
    """Nodes that each thread keeps where automata are narrow, 0 where they aren't taken for that, and the memory of a
    block (csrc/cuda/narrow_sweep.h)."""
    cell, of_thread, least = cell_bytes(real), -(-nodes // threads), state_bytes(nodes, real)
    slot = (columns * cell + nodes * (cell // 2 + 4) + 15) // 16 * 16
    bytes_ = max(SLOTS_AHEAD * slot + 2 * nodes * cell, least)
    return (of_thread, bytes_) if 0 < of_thread <= _MOST_NODES and on.fits(bytes_) else (0, least)


def forward(
    on: Runtime,
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
    anchor: torch.Tensor | None,
    gradient_out: torch.Tensor | None,
    with_scores_gradient: bool,
    with_weights_gradient: bool,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, ...]:
    """`seqtrain::full_sum`."""
    automata = Automata(
        arcs, weights, arc_offsets, final_states, final_weights, final_offsets, starts, num_states
    ).for_kernels()
    lengths = arguments.int64(lengths)
    offsets = None if offsets is None else arguments.int64(offsets)
    batch = arguments.batch_size(scores, offsets)
    status, summary = feasible(automata, scores, offsets, lengths, on_infeasible)
    shared = automata.size == 1
    width = int(summary.labels.max()) if automata.size else 0
    real, device = arguments.arithmetic_dtype(scores), on.device
    status = to_device(status, device)
    value = torch.zeros(batch, dtype=torch.float64, device=device)
    occupancies = torch.empty(
        (*scores.shape[:-1], width) if with_scores_gradient else (0,), dtype=real, device=device
    )
    counts = (automata.arcs.shape[0], automata.final_states.shape[0])
    per_item = [
        ((batch, count) if shared else (count,)) if with_weights_gradient else (0,) for count in counts
    ]
    # Either direction adds up arcs of its own half of the frames.
    halves = torch.zeros((2, *per_item[0]), dtype=torch.float64, device=device)
    final_occupancies = torch.zeros(per_item[1], dtype=torch.float64, device=device)
    layout = lay_out(on, automata, real, width, with_weights=with_weights_gradient)
    if batch:
        frames = checked_frames(on, lengths, offsets)
        pass_over = Rows(on, scores, frames, layout.columns, shared_columns=shared, normalize=False)
        emissions = pass_over.emissions(scores, status, None)
        likelihood = torch.full((batch,), float("-inf"), dtype=torch.float64, device=device)
        threads = threads_for(layout.nodes, SWEEP_THREADS)
        nodes_of_thread, block_bytes = _division(on, width, layout.nodes, threads, real)
        workspace = on.workspace(2 * batch, block_bytes)
        problem: dict[str, Argument] = {
            **layout.fields,
            "batch": batch,
            "max_frames": pass_over.max_frames,
            "offsets": pass_over.offsets,
            "lengths": pass_over.lengths,
            "columns": width,
            "emission": emissions.mantissa,
            "emission_exponent": emissions.exponent,
            "nodes": layout.nodes,
            "store": torch.empty((pass_over.count, layout.nodes), dtype=real, device=device),
            "store_exponent": torch.empty((pass_over.count, layout.nodes), dtype=torch.int32, device=device),
            "carry": torch.empty((2 * batch, layout.nodes), dtype=real, device=device),
            "carry_exponent": torch.empty((2 * batch, layout.nodes), dtype=torch.int32, device=device),
            "log_likelihood": likelihood,
            "row_status": emissions.row_status,
            "status": status,
            "with_gradient": with_scores_gradient or with_weights_gradient,
            "nodes_of_thread": nodes_of_thread,
            "workspace": workspace,
            "occupancies": occupancies if with_scores_gradient else None,
            "arc_occupancies": halves if with_weights_gradient else None,
            "arc_places": halves[0].numel(),
            "final_occupancies": final_occupancies if with_weights_gradient else None,
        }
        for phase in (0, 1):
            on.launch(
                f"full_sum_sweep_{pass_over.suffix}", "FullSumProblem", 2 * batch,
                threads, block_bytes if workspace is None else 0,
                **problem, phase=phase,
            )  # fmt: skip
        if with_scores_gradient:
            on.launch(
                f"full_sum_occupancies_{pass_over.suffix}", "FullSumProblem", pass_over.row_blocks,
                threads_for(width, 128), **problem, phase=0,
            )  # fmt: skip
        value = pass_over.values(emissions, likelihood, status, sign=1.0)
        arguments.check_status(value, status, lengths, on_infeasible, infinite=float("-inf"))
    report_inside(status, count_handle, on_infeasible)
    return (
        value.to(arguments.value_dtype(scores)), occupancies, layout.columns, halves.sum(0), final_occupancies, status
    )  # fmt: skip


def scores_backward_into(
    on: Runtime,
    grad_value: torch.Tensor,
    anchor: torch.Tensor,
    weights: torch.Tensor,
    offsets: torch.Tensor | None,
    lengths: torch.Tensor,
    occupancies: torch.Tensor,
    column_labels: torch.Tensor,
    status: torch.Tensor,
    gradient: torch.Tensor,
) -> None:
    """`seqtrain::full_sum_scores_backward_into`."""
    if arguments.batch_size(gradient, offsets) == 0:
        return
    frames = frames_again(on, gradient, lengths, offsets)
    pass_over = Rows(
        on, gradient, frames, column_labels, shared_columns=column_labels.shape[0] == 1, normalize=False
    )  # fmt: skip
    pass_over.gradient(
        gradient, None, occupancies, None, grad_value.to(torch.float64).contiguous(), status, following=None, sign=1.0
    )  # fmt: skip


def scores_backward(
    on: Runtime,
    grad_value: torch.Tensor,
    anchor: torch.Tensor,
    weights: torch.Tensor,
    offsets: torch.Tensor | None,
    lengths: torch.Tensor,
    occupancies: torch.Tensor,
    column_labels: torch.Tensor,
    status: torch.Tensor,
    size: list[int],
    stride: list[int],
) -> torch.Tensor:
    """`seqtrain::full_sum_scores_backward`."""
    gradient = torch.empty_strided(size, stride, dtype=anchor.dtype, device=on.device)
    scores_backward_into(
        on, grad_value, anchor, weights, offsets, lengths, occupancies, column_labels, status, gradient
    )
    return gradient


def weights_backward(on: Runtime, *inputs: Any) -> torch.Tensor:
    """`seqtrain::full_sum_weights_backward`."""
    return weighted_sum(*inputs)


def gradient(
    on: Runtime,
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
    """`seqtrain::full_sum_gradient`."""
    dense = scores.new_empty((0,))
    if with_scores:
        dense = scores_backward(
            on,
            grad_value,
            scores,
            weights,
            offsets,
            lengths,
            occupancies,
            column_labels,
            status,
            size,
            stride,
        )
    to_weights, to_finals = (
        weighted_sum(grad_value, scores, items, found, item_offsets, status)
        if with_weights
        else items.new_empty((0,))
        for items, found, item_offsets in (
            (weights, arc_occupancies, arc_offsets),
            (final_weights, final_occupancies, final_offsets),
        )
    )
    return dense, to_weights, to_finals


def posteriors(
    on: Runtime,
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
    """`seqtrain::posteriors`."""
    value, occupancies, columns, _, _, status = forward(
        on, scores, offsets, lengths, arcs, weights, arc_offsets, final_states, final_weights, final_offsets,
        starts, num_states, None, None, True, False, on_infeasible, count_handle,
    )  # fmt: skip
    ones = torch.ones(value.shape, dtype=torch.float64, device=on.device)
    size, stride = arguments.gradient_layout(scores)
    dense = scores_backward(
        on, ones, scores, weights, offsets, lengths, occupancies, columns, status, size, stride
    )
    return dense, value, status


def tangents(on: Runtime, *inputs: Any) -> None:
    """`seqtrain::full_sum_tangents`, which has no kernel here."""
    raise DerivativeError(
        f"second and forward-mode derivatives of full_sum have a kernel for the CPU alone, and the scores are on "
        f"{inputs[1].device}: pass scores.cpu()"
    )
