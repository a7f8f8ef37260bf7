"""Smaller lattices: without arcs that little of the probability, or no good path, goes through."""

from __future__ import annotations

import torch

from seqtrain.errors import ArgumentError
from seqtrain.lattice.lattice import Lattice
from seqtrain.lattice.paths import best_path
from seqtrain.lattice.total_score import arc_posteriors, check_on_host, operands
from seqtrain.ops.lattice_paths import lattice_best_scores, lattice_trim

__all__ = ["prune", "subset"]


def subset(lattice: Lattice, arcs: torch.Tensor, finals: torch.Tensor) -> Lattice:
    """The lattice of the chosen arcs (ΣA,) bool and final states (ΣF,) bool, without what lies on no path then.

    Gradients flow through. `truncated` stays as it is.
    """
    check_on_host(lattice)
    arcs, finals, states = lattice_trim(*(t.detach() for t in operands(lattice)), arcs, finals)
    first = lattice.state_offsets[:-1]
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), states.to(torch.int64).cumsum(0)])
    state_offsets = ends[lattice.state_offsets]
    owner = lattice.utterance_of_arcs()[arcs]
    rows = lattice.arcs[arcs].to(torch.int64)
    rows[:, :2] = ends[rows[:, :2] + first[owner, None]] - state_offsets[owner, None]
    final_owner = torch.repeat_interleave(lattice.final_offsets.diff())[finals]
    final_states = (
        ends[lattice.final_states[finals].to(torch.int64) + first[final_owner]] - state_offsets[final_owner]
    )

    def offsets(kept: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros(1, dtype=torch.int64), kept.to(torch.int64).cumsum(0)])[before]

    parts = lattice._parts()
    parts |= {
        name: tensor[arcs]
        for name in ("weights", "acoustic", "graph", "aux", "graph_arcs")
        if (tensor := parts[name]) is not None
    }
    parts |= {
        "arcs": rows.to(torch.int32),
        "frames": lattice.frames[states],
        "final_states": final_states.to(torch.int32),
        "final_weights": lattice.final_weights[finals],
        "arc_offsets": offsets(arcs, lattice.arc_offsets),
        "state_offsets": state_offsets,
        "final_offsets": offsets(finals, lattice.final_offsets),
    }
    return Lattice._from_checked(parts, lattice.tags)


def prune(lattice: Lattice, *, posterior: float | None = None, beam: float | None = None) -> Lattice:
    """The lattice without arcs of a posterior below `posterior`, or whose best path lies `beam` below the best of all.

    The best path is always kept; what lies on no path any more goes, too. Gradients flow through. What was cut away
    here is the caller's choice: `truncated` still tells about the search alone.

    Args:
        posterior: in 0 … 1; None: not by posterior.
        beam: natural-log units, >= 0; None: not by the best path.

    Raises:
        ArgumentError: neither is given, or one is out of range.
    """
    check_on_host(lattice)
    if posterior is None and beam is None:
        raise ArgumentError("pass posterior, beam, or both", argument="posterior")
    if posterior is not None and not 0 <= posterior <= 1:
        raise ArgumentError(f"posterior must lie in 0 … 1, got {posterior}", argument="posterior")
    if beam is not None and not beam >= 0:
        raise ArgumentError(f"beam must be at least 0, got {beam}", argument="beam")
    arcs = torch.ones(lattice.arcs.shape[0], dtype=torch.bool)
    finals = torch.ones(lattice.final_states.shape[0], dtype=torch.bool)
    if posterior is not None:
        arcs &= arc_posteriors(lattice) >= posterior
    if beam is not None:
        from_start, to_end = lattice_best_scores(*(t.detach() for t in operands(lattice)))
        owner = lattice.utterance_of_arcs()
        first = lattice.state_offsets[:-1]
        # An utterance without states has no arcs either, so what stands here for it isn't read.
        best = (
            to_end[first.clamp(max=max(to_end.shape[0] - 1, 0))]
            if to_end.shape[0]
            else to_end.new_zeros(len(lattice))
        )
        begin = from_start[first[owner] + lattice.arcs[:, 0]]
        end = to_end[first[owner] + lattice.arcs[:, 1]]
        arcs &= begin + lattice.weights.detach().to(torch.float64) + end >= best[owner] - beam
        final_owner = torch.repeat_interleave(lattice.final_offsets.diff())
        reached = from_start[first[final_owner] + lattice.final_states]
        finals &= reached + lattice.final_weights.detach().to(torch.float64) >= best[final_owner] - beam
    best_arcs = best_path(lattice)
    arcs[best_arcs.arcs] = True
    finals[best_arcs.finals] = True
    return subset(lattice, arcs, finals)
