"""The pruned product of scores and automata as an operator.

    intersect(scores (B, T, V) | (ΣT, V), offsets (B + 1,) | None, lengths (B,), <automata>, beam, max_active,
              on_infeasible, count_handle)
        → arcs (ΣA, 3) int32, graph_arcs (ΣA,), frames (ΣS,) int32, final_states (ΣF,) int32, graph_finals (ΣF,),
          arc_offsets, state_offsets, final_offsets (all (B + 1,)), truncated (B,), status (B,)

`graph_arcs` and `graph_finals` are indices into the arcs and final states of the utterance's automaton. Scores and
weights of the arcs are gathered by the caller, where autograd sees it.
"""

from __future__ import annotations

import torch

from seqtrain.infeasible import report_inside
from seqtrain.ops import arguments
from seqtrain.ops.automata import SCHEMA, Automata
from seqtrain.ops.full_sum import feasible
from seqtrain.ops.kernels import KERNELS
from seqtrain.ops.library import register

__all__ = ["BEAM", "intersect"]

BEAM = -3
"""Status of an utterance whose every path was dropped by the beam, or by the limit of active states."""


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
    beam: float,
    max_active: int,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, ...]:
    automata = Automata(
        arcs, weights, arc_offsets, final_states, final_weights, final_offsets, starts, num_states
    ).for_kernels()
    lengths = arguments.int64(lengths)
    batch = arguments.batch_size(scores, offsets)
    status, _ = feasible(automata, scores, offsets, lengths, on_infeasible)
    truncated = torch.zeros(batch, dtype=torch.int64)
    found = KERNELS.intersect(
        arguments.tensor_argument(scores, offsets),
        batch,
        lengths.data_ptr(),
        automata.argument(),
        beam,
        max_active,
        truncated.data_ptr(),
        status.data_ptr(),
        torch.get_num_threads(),
    )
    lost = (status == BEAM).nonzero().flatten()
    reason = (
        f"the search dropped every path (beam={beam:g}, max_active={max_active}): no state that it kept reaches a "
        "final state; widen the beam"
    )
    arguments.raise_infeasible(((int(b), int(lengths[b]), None, reason) for b in lost), on_infeasible)
    arguments.check_status(
        torch.zeros(batch), status, lengths, on_infeasible, infinite=float("-inf")
    )  # the value is not needed: an utterance without a path has no states
    report_inside(status, count_handle, on_infeasible)

    num_arcs, num_product_states, num_finals = found.sizes()
    counts = torch.empty((batch, 3), dtype=torch.int64)
    product_arcs = torch.empty((num_arcs, 3), dtype=torch.int32)
    graph_arcs = torch.empty(num_arcs, dtype=torch.int64)
    frames = torch.empty(num_product_states, dtype=torch.int32)
    product_finals = torch.empty(num_finals, dtype=torch.int32)
    graph_finals = torch.empty(num_finals, dtype=torch.int64)
    written = (counts, product_arcs, graph_arcs, frames, product_finals, graph_finals)
    found.copy(*(tensor.data_ptr() for tensor in written))
    ends = torch.zeros((batch + 1, 3), dtype=torch.int64)
    torch.cumsum(counts, 0, out=ends[1:])
    return (
        product_arcs, graph_arcs, frames, product_finals, graph_finals,
        *(ends[:, k].contiguous() for k in range(3)), truncated, status,
    )  # fmt: skip


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
    beam: float,
    max_active: int,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, ...]:
    batch = arguments.batch_size(scores, offsets)
    context = torch.library.get_ctx()
    arcs_there, states_there, finals_there = (context.new_dynamic_size() for _ in range(3))
    int64 = torch.int64
    return (
        arcs.new_empty((arcs_there, 3)),
        arcs.new_empty((arcs_there,), dtype=int64),
        arcs.new_empty((states_there,)),
        arcs.new_empty((finals_there,)),
        arcs.new_empty((finals_there,), dtype=int64),
        *(arcs.new_empty((batch + 1,), dtype=int64) for _ in range(3)),
        *(arcs.new_empty((batch,), dtype=int64) for _ in range(2)),
    )


register(
    f"intersect(Tensor scores, Tensor? offsets, Tensor lengths, {SCHEMA}, float beam, SymInt max_active, "
    "str on_infeasible, int count_handle) -> (Tensor arcs, Tensor graph_arcs, Tensor frames, Tensor final_states, "
    "Tensor graph_finals, Tensor arc_offsets, Tensor state_offsets, Tensor final_offsets, Tensor truncated, "
    "Tensor status)",
    cpu=_forward,
    fake=_fake,
)

intersect = torch.ops.seqtrain.intersect
