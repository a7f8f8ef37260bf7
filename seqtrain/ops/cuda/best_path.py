"""The best path's operator on CUDA: what `seqtrain.ops.best_path` does on the CPU, ties alike, in one launch."""

from __future__ import annotations

import torch

from seqtrain.infeasible import report_inside
from seqtrain.ops import arguments
from seqtrain.ops.automata import Automata
from seqtrain.ops.cuda.copies import to_device
from seqtrain.ops.cuda.layout import lay_out_best_path
from seqtrain.ops.cuda.rows import dtype_code, strides, suffix
from seqtrain.ops.cuda.runtime import Runtime, threads_for
from seqtrain.ops.full_sum import feasible

__all__ = ["forward"]

_STATE_BYTES = 2 * 8  # two frames in double
_THREADS = 512


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
    max_frames: int,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, ...]:
    """`seqtrain::best_path`."""
    automata = Automata(
        arcs, weights, arc_offsets, final_states, final_weights, final_offsets, starts, num_states
    ).for_kernels()
    lengths = arguments.int64(lengths)
    offsets = None if offsets is None else arguments.int64(offsets)
    batch, device = arguments.batch_size(scores, offsets), on.device
    status, _ = feasible(automata, scores, offsets, lengths, on_infeasible)
    status = to_device(status, device)
    value = torch.zeros(batch, dtype=torch.float64, device=device)
    labels, states, path = (
        torch.full((batch, max_frames), -1, dtype=torch.int64, device=device) for _ in range(3)
    )
    if batch:
        layout = lay_out_best_path(on, automata)
        state_bytes = _STATE_BYTES * layout.nodes
        workspace = on.workspace(batch, state_bytes)
        utterance, frame, label = strides(scores)
        on.launch(
            f"best_path_{suffix(scores.dtype)}", "BestPathProblem", batch, threads_for(layout.nodes, _THREADS),
            state_bytes if workspace is None else 0,
            **layout.fields, batch=batch, scores=scores, dtype=dtype_code(scores.dtype), stride_utterance=utterance,
            stride_frame=frame, stride_label=label, offsets=None if offsets is None else to_device(offsets, device),
            lengths=to_device(lengths, device), padded_frames=scores.shape[1] if offsets is None else 0,
            states=layout.nodes,
            back=torch.empty((scores.shape[:-1].numel(), layout.nodes), dtype=torch.int32, device=device),
            workspace=workspace, max_frames=max_frames, value=value, path_labels=labels, path_states=states,
            path_arcs=path, status=status,
        )  # fmt: skip
        arguments.check_status(value, status, lengths, on_infeasible, infinite=float("-inf"))
    report_inside(status, count_handle, on_infeasible)
    return value.to(arguments.value_dtype(scores)), labels, states, path, status
