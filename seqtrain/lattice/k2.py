"""k2's lattices turned into ours and back, and k2's own pruned intersection."""

from __future__ import annotations

import math
from typing import Any

import torch

from seqtrain.errors import DtypeError, Infeasible, InfeasibleError
from seqtrain.fsa import Fsa, FsaBatch, K2Attributes, from_k2, k2_attributes, to_k2
from seqtrain.fsa.k2 import k2_module
from seqtrain.lattice.lattice import Lattice

__all__ = ["from_k2_lattice", "search_by_k2", "to_k2_lattice"]

_ARC = "seqtrain_arc"
_UNBOUNDED = 1e9


def from_k2_lattice(graph: Any) -> Lattice:
    """A `k2.Fsa` without cycles, such as `k2.intersect_dense` makes, as a lattice; gradients reach `graph.scores`.

    A state stands at the frame that the longest path to it has. Auxiliary labels (`aux_labels`, one an arc) become
    `aux`, with k2's 0 for none as -1. Scores become the graph's part, and where there is an attribute `lm_scores` that
    does, and the rest the acoustic part.

    Raises:
        FsaError: a cycle, or as `fsa.from_k2`. DtypeError: not a `k2.Fsa`, or several auxiliary labels on an arc.
    """
    automata, attributes = from_k2(graph), k2_attributes(graph)
    batch = FsaBatch.from_list([automata]) if isinstance(automata, Fsa) else automata
    words = attributes.arcs.get("aux_labels")
    if words is not None and not isinstance(words, torch.Tensor):
        raise DtypeError("aux_labels must be one label an arc, not a ragged tensor", argument="graph")
    aux = None if words is None else torch.where(words > 0, words, torch.full_like(words, -1))
    lattice = Lattice.from_fsa(batch, aux=aux)
    of_graph = attributes.arcs.get("lm_scores")
    if isinstance(of_graph, torch.Tensor):
        part = of_graph[_rows(lattice, batch).to(of_graph.device)].to(lattice.weights)
        parts = lattice._parts() | {"graph": part, "acoustic": lattice.weights - part}
        lattice = Lattice._from_checked(parts, lattice.tags)
    return lattice


def _rows(lattice: Lattice, batch: FsaBatch) -> torch.Tensor:
    """The arcs of the batch, counted through it, that those of the lattice are."""
    assert lattice.graph_arcs is not None
    return lattice.graph_arcs.cpu() + batch.arc_offsets.cpu()[lattice.utterance_of_arcs().cpu()]


def to_k2_lattice(lattice: Lattice) -> Any:
    """The lattices as an FsaVec of k2, with `aux_labels` (0 for none), `lm_scores` and `am_scores` as attributes.

    An utterance without a path becomes a graph that accepts nothing. Scores are the lattice's weights.

    Raises:
        As `fsa.to_k2`.
    """
    batch = lattice.to_fsa()
    finals = torch.zeros_like(batch.final_weights)
    arcs = {"lm_scores": lattice.graph.float(), "am_scores": lattice.acoustic.float()}
    of_finals = {"lm_scores": batch.final_weights.float(), "am_scores": finals.float()}
    if lattice.aux is not None:
        arcs["aux_labels"] = lattice.aux.clamp(min=0)
        of_finals["aux_labels"] = torch.full_like(batch.final_states, -1)
    return to_k2(batch, attributes=K2Attributes(arcs, of_finals))


def search_by_k2(
    values: torch.Tensor,
    lengths: torch.Tensor,
    graphs: FsaBatch,
    *,
    beam: float,
    max_active: int | None,
    on_infeasible: str,
) -> tuple[torch.Tensor, ...]:
    """`k2.intersect_dense_pruned` as the search of `lattice.intersect`: what the operator of that returns.

    k2 doesn't tell how many states it has dropped: `truncated` is 0 without limits, else -1.

    Args:
        values: (B, T, V), which k2 takes as float32.
        lengths: (B,) frames.
        graphs: B automata, or one for all.
        beam, max_active, on_infeasible: as `lattice.intersect` has them.

    Raises:
        InfeasibleError, MissingDependencyError.
    """
    k2 = k2_module()
    batch = len(lengths)
    # k2 wants durations that don't rise.
    order = torch.argsort(lengths, descending=True, stable=True)
    place = torch.argsort(order)
    chosen = FsaBatch.from_list([graphs[i] for i in order.tolist()]) if len(graphs) > 1 else graphs
    numbers, final_numbers = (
        _numbers(offsets).to(torch.int32) for offsets in (chosen.arc_offsets, chosen.final_offsets)
    )
    attributes = K2Attributes({_ARC: numbers}, {_ARC: final_numbers})
    segments = torch.stack((order, torch.zeros_like(order), lengths[order]), dim=1).to(torch.int32)
    found = k2.intersect_dense_pruned(
        to_k2(chosen, attributes=attributes),
        k2.DenseFsaVec(values.detach().float().contiguous(), segments),
        search_beam=min(beam, _UNBOUNDED),
        output_beam=min(beam, _UNBOUNDED),
        min_active_states=0,
        max_active_states=2**30 if max_active is None else max_active,
    )
    automata, kept = from_k2(found), k2_attributes(found)
    assert isinstance(automata, FsaBatch)
    # The numbers go along as weights: a lattice's construction sorts arcs and final states.
    marked = automata.with_weights(
        *(torch.as_tensor(part[_ARC]).double() for part in (kept.arcs, kept.finals))
    )
    lattice = Lattice.from_fsa(FsaBatch.from_list([marked[i] for i in place.tolist()]))
    status = torch.where(lattice.final_offsets.diff() == 0, -1, 0)
    lost = (status < 0).nonzero().flatten().tolist()
    if lost and on_infeasible == "raise":
        reason = "k2 has found no path of that many frames within its beam"
        raise InfeasibleError([Infeasible(b, None, int(lengths[b]), None, reason) for b in lost])
    frames, state_offsets = lattice.frames, lattice.state_offsets
    if lost:
        # What is left of such an utterance is a start that leads nowhere.
        sizes = torch.where(status < 0, 0, state_offsets.diff())
        owner = torch.repeat_interleave(state_offsets.diff())
        frames = frames[status[owner] == 0]
        state_offsets = torch.cat((torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)))
    limited = max_active is not None or beam < math.inf
    return (
        lattice.arcs,
        lattice.graph.detach().long(),
        frames,
        lattice.final_states,
        lattice.final_weights.detach().long(),
        lattice.arc_offsets,
        state_offsets,
        lattice.final_offsets,
        torch.full((batch,), -1 if limited else 0, dtype=torch.int64),
        status,
    )


def _numbers(offsets: torch.Tensor) -> torch.Tensor:
    """0, 1, … within each automaton."""
    counts = offsets.diff()
    return torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(counts)
