"""Pruned intersection of scores with a graph: the paths of T frames that are worth keeping, as a lattice."""

from __future__ import annotations

import math

import torch

from seqtrain.errors import ArgumentError, InfeasibleError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.fsa._arrays import Integers, int32_array, integer_array
from seqtrain.functional import _prepare, _Prepared
from seqtrain.infeasible import InfeasibleCount, handle, report
from seqtrain.lattice.k2 import search_by_k2
from seqtrain.lattice.lattice import Lattice
from seqtrain.ops.intersect import intersect as intersect_op
from seqtrain.scores import Scores

__all__ = ["arc_scores", "intersect"]

_UNLIMITED = 2**31 - 1


def intersect(
    scores: Scores,
    lengths: torch.Tensor,
    graph: FsaBatch | Fsa,
    *,
    beam: float = math.inf,
    max_active: int | None = None,
    aux: Integers | None = None,
    engine: str = "seqtrain",
    on_infeasible: str = "raise",
    infeasible: InfeasibleCount | None = None,
) -> Lattice:
    """The paths of a graph that fit each utterance, as a lattice whose states stand at frames.

    A frame's states are those of the graph that a path reaches there. Their partial score is that of the best path to
    them; what lies further than `beam` below the frame's best is dropped, and then all but the `max_active` best (of
    equal ones, the lower numbers stay). What reaches no final state at the end is left out. So the lattice holds every
    path through the states that stayed, with its exact score, and with `beam=inf` and no limit every path there is:
    `total_score` of the lattice is `full_sum` then. Whether anything was dropped is told by `truncated`.

    Args:
        scores: (B, T, V) float16, bfloat16, float32 or float64, or `Packed`, natural log.
        lengths: (B,) int frames.
        graph: a batch of B automata, or one `Fsa` that all utterances share (never copied).
        beam: in natural-log units, >= 0.
        max_active: states of a frame, >= 1; None: no limit.
        aux: (ΣA,) auxiliary labels of the graph's arcs, such as words, -1 for none: the lattice's arcs take them over.
        engine: "seqtrain", or "k2" for k2's own search (`k2.intersect_dense_pruned`, `beam` as its search and output
            beam): its lattice has the same arcs where nothing is dropped, and `truncated` is -1, not known, where
            something may have been. It takes scores of shape (B, T, V), as float32.
        on_infeasible: what to do with an utterance without a path, also where the beam dropped every path there is:
            "raise" InfeasibleError naming all of them, or "mask" or "inf" (no states, and a total score of -inf).
        infeasible: counts the utterances that were masked.

    Returns:
        A `Lattice` of float32 weights (float64 for float64 scores); its acoustic part has a gradient to the scores, its
        graph part and final weights one to the graph's weights. `graph_arcs` are the arcs of the utterance's graph.
        Arcs are sorted by frame, graph state, and graph arc.

    Raises:
        InfeasibleError, LabelError, NonFiniteScoresError, FsaError, ShapeError, DtypeError, DeviceError.
        ArgumentError: `beam` is negative or NaN, `max_active` below 1, or an unknown engine.
        MissingDependencyError: the engine is k2, and k2 isn't there.
    """
    if not beam >= 0:
        raise ArgumentError(f"beam must be at least 0 (math.inf: no beam), got {beam}", argument="beam")
    if max_active is not None and max_active < 1:
        raise ArgumentError(f"max_active must be at least 1, got {max_active}", argument="max_active")
    if engine not in ("seqtrain", "k2"):
        raise ArgumentError(f"engine must be 'seqtrain' or 'k2', got {engine!r}", argument="engine")
    p = _prepare(scores, lengths, graph, on_infeasible)
    all_arcs, all_weights, graph_offsets, _, all_finals, graph_final_offsets = p.automata[:6]
    words = None
    if aux is not None:
        checked = integer_array(aux, argument="aux", shape=(all_arcs.shape[0],))
        words = torch.from_numpy(int32_array(checked, argument="aux"))
    try:
        (
            arcs, graph_arcs, frames, final_states, graph_finals, arc_offsets, state_offsets, final_offsets,
            truncated, status,
        ) = (
            _search_by_k2(p, beam, max_active, on_infeasible) if engine == "k2" else intersect_op(
                p.values.detach(), p.offsets, p.lengths, *(t.detach() for t in p.automata), float(beam),
                _UNLIMITED if max_active is None else min(max_active, _UNLIMITED), on_infeasible, handle(infeasible),
            )
        )  # fmt: skip
    except InfeasibleError as error:
        raise error.with_tags(p.tags) from None
    report(status, p.tags, infeasible, on_infeasible)

    shared = graph_offsets.shape[0] == 2
    owner = torch.repeat_interleave(arc_offsets.diff())
    final_owner = torch.repeat_interleave(final_offsets.diff())
    flat_arcs = graph_arcs if shared else graph_arcs + graph_offsets.cpu()[owner]
    flat_finals = graph_finals if shared else graph_finals + graph_final_offsets.cpu()[final_owner]
    begin = frames[state_offsets[owner] + arcs[:, 0]].to(torch.int64)
    acoustic = arc_scores(p.values, p.offsets, owner, begin, arcs[:, 2].to(torch.int64))
    given = all_weights.index_select(0, flat_arcs).to(acoustic.dtype)
    return Lattice._from_checked(
        {
            "arcs": arcs,
            "weights": acoustic + given,
            "acoustic": acoustic,
            "graph": given,
            "aux": None if words is None else words[flat_arcs],
            "graph_arcs": graph_arcs,
            "frames": frames,
            "final_states": final_states,
            "final_weights": all_finals.index_select(0, flat_finals).to(acoustic.dtype),
            "arc_offsets": arc_offsets,
            "state_offsets": state_offsets,
            "final_offsets": final_offsets,
            "lengths": p.lengths.to(torch.int64),
            "truncated": truncated,
        },
        None if p.tags is None else tuple(p.tags),
    )


def _search_by_k2(
    p: _Prepared, beam: float, max_active: int | None, on_infeasible: str
) -> tuple[torch.Tensor, ...]:
    names = (
        "arcs", "weights", "arc_offsets", "final_states", "final_weights", "final_offsets", "starts", "num_states",
    )  # fmt: skip
    graphs = FsaBatch._from_checked(
        {name: tensor.detach() for name, tensor in zip(names, p.automata, strict=True)}
    )
    if p.offsets is not None:
        raise ShapeError("k2 takes scores of shape (B, T, V), not packed ones", argument="scores")
    return search_by_k2(
        p.values, p.lengths.long(), graphs, beam=beam, max_active=max_active, on_infeasible=on_infeasible
    )


def arc_scores(
    values: torch.Tensor,
    offsets: torch.Tensor | None,
    utterance: torch.Tensor,
    frame: torch.Tensor,
    label: torch.Tensor,
) -> torch.Tensor:
    """(A,) scores of labels at frames, in at least float32; the gradient is summed in arc order, so it has one value.

    Args:
        values: (B, T, V), or packed (ΣT, V) with `offsets` (B + 1,).
        utterance, frame, label: (A,) int64.
    """
    wide = values if values.dtype == torch.float64 else values.to(torch.float32)
    row = frame + (utterance * values.shape[1] if offsets is None else offsets[utterance])
    # One dimension: the gradient of a selection there is summed in order, elsewhere atomically by several threads.
    return wide.reshape(-1).index_select(0, row * values.shape[-1] + label)
