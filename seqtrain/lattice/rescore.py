"""The same paths with other scores."""

from __future__ import annotations

import torch

from seqtrain.errors import ArgumentError, LabelError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.fsa._arrays import match_dtype
from seqtrain.fsa.k2 import as_automata
from seqtrain.lattice.intersect import arc_scores
from seqtrain.lattice.lattice import Lattice
from seqtrain.lattice.total_score import check_on_host
from seqtrain.scores import Scores, check_scores, split_scores

__all__ = ["rescore"]


def rescore(
    lattice: Lattice,
    *,
    scores: Scores | None = None,
    graph: FsaBatch | Fsa | torch.Tensor | None = None,
    acoustic_scale: float = 1.0,
    graph_scale: float = 1.0,
) -> Lattice:
    """The lattice with weights `acoustic_scale` · acoustic + `graph_scale` · graph, and final weights · `graph_scale`.

    Args:
        scores: (B, T, V) or `Packed`: new scores, of which the acoustic part is gathered anew, with gradient. Arcs
            must take one frame each. None: the acoustic part stays.
        graph: the graph of the intersection with other weights (the same arcs in the same order), or (ΣA,) graph
            weights of the lattice's arcs themselves, with gradient. None: the graph's part stays.
        acoustic_scale, graph_scale: factors; the parts are kept unscaled, so that scales don't pile up. Final weights
            are scaled as they stand.

    Raises:
        ShapeError, DtypeError: scores or graph weights don't fit the lattice.
        LabelError: a label of an arc isn't a column of the scores.
        ArgumentError: an arc takes several frames, or the lattice doesn't know its graph's arcs.
    """
    check_on_host(lattice)
    parts = lattice._parts()
    acoustic = lattice.acoustic if scores is None else _gathered(lattice, scores)
    given, finals = lattice.graph, lattice.final_weights
    if isinstance(graph, torch.Tensor):
        if graph.shape != lattice.graph.shape:
            raise ShapeError(
                f"graph must have the shape {tuple(lattice.graph.shape)}, one weight an arc, got {tuple(graph.shape)}",
                argument="graph",
            )
        given = graph
    elif graph is not None:
        given = _graph_weights(lattice, graph)
    given = match_dtype(given, acoustic, argument="graph")
    weights = _scaled(acoustic, acoustic_scale) + _scaled(given, graph_scale)
    parts |= {
        "acoustic": acoustic,
        "graph": given,
        "weights": weights,
        "final_weights": _scaled(match_dtype(finals, acoustic, argument="final_weights"), graph_scale),
    }
    changed = Lattice._from_checked(parts, lattice.tags)
    changed.check_weights()
    return changed


def _scaled(values: torch.Tensor, scale: float) -> torch.Tensor:
    if scale == 1.0:
        return values
    forbidden = values == -torch.inf
    return (values.masked_fill(forbidden, 0.0) * scale).masked_fill(forbidden, -torch.inf)


def _gathered(lattice: Lattice, scores: Scores) -> torch.Tensor:
    values, offsets = split_scores(scores)
    check_scores(values, offsets)
    batch = values.shape[0] if offsets is None else offsets.shape[0] - 1
    if batch != len(lattice):
        raise ShapeError(f"scores hold {batch} utterances, the lattice {len(lattice)}", argument="scores")
    rows = torch.full((batch,), values.shape[1]) if offsets is None else offsets.diff()
    short = (rows < lattice.lengths).nonzero()
    if short.numel():
        b = int(short[0])
        raise ShapeError(
            f"scores of utterance {b} have {int(rows[b])} frames, the lattice {int(lattice.lengths[b])}",
            argument="scores",
        )
    begin, end = lattice.arc_frames()
    long = (end - begin != 1).nonzero()
    owner = lattice.utterance_of_arcs()
    if long.numel():
        flat = int(long[0])
        b = int(owner[flat])
        raise ArgumentError(
            f"arc {flat - int(lattice.arc_offsets[b])} of utterance {b} takes {int(end[flat] - begin[flat])} frames; "
            "only arcs of one frame can be given new scores",
            argument="scores",
        )
    labels = lattice.arcs[:, 2].to(torch.int64)
    outside = (labels >= values.shape[-1]).nonzero()
    if outside.numel():
        flat = int(outside[0])
        b, label = int(owner[flat]), int(labels[flat])
        arc = flat - int(lattice.arc_offsets[b])
        raise LabelError(
            f"arc {arc} of utterance {b} has label {label}, but scores have {values.shape[-1]} labels "
            f"(0 … {values.shape[-1] - 1})",
            argument="scores",
            utterance=b,
            position=arc,
            label=label,
            num_labels=values.shape[-1],
        )
    return arc_scores(values, offsets, owner, begin, labels)


def _graph_weights(lattice: Lattice, graph: FsaBatch | Fsa) -> torch.Tensor:
    if lattice.graph_arcs is None:
        raise ArgumentError(
            "the lattice doesn't know its graph's arcs: pass the weights of its arcs as a tensor",
            argument="graph",
        )
    graph = as_automata(graph, argument="graph")
    graphs = FsaBatch.from_list([graph]) if isinstance(graph, Fsa) else graph
    if not isinstance(graph, Fsa) and len(graphs) != len(lattice):
        raise ShapeError(
            f"graph holds {len(graphs)} automata for {len(lattice)} utterances", argument="graph"
        )
    owner = lattice.utterance_of_arcs()
    g = torch.zeros_like(owner) if isinstance(graph, Fsa) else owner
    flat = graphs.arc_offsets[g] + lattice.graph_arcs
    wrong = flat >= graphs.arc_offsets[g + 1]
    if not bool(wrong.any()):
        wrong = graphs.arcs[flat, 2] != lattice.arcs[:, 2]
    bad = wrong.nonzero()
    if bad.numel():
        arc = int(lattice.graph_arcs[int(bad[0])])
        raise ShapeError(
            f"the graph isn't that of the lattice: its arc {arc} is missing or has another label",
            argument="graph",
        )
    return graphs.weights.index_select(0, flat)
