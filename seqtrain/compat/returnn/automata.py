"""RETURNN's own automata, edge by edge: CTC's, and the staircase of its fast_bw layer."""

from __future__ import annotations

from typing import NamedTuple

import torch

from seqtrain.fsa import Fsa, FsaBatch

__all__ = ["ReturnnEdges", "ctc_edges", "staircase"]


class ReturnnEdges(NamedTuple):
    """A batch in the layout of RETURNN's `fast_baum_welch`.

    Attributes:
        edges: (4, A) int32, rows: from, to, label, sequence; state numbers run through the batch.
        weights: (A,) float32 costs; +inf where the place of an edge isn't used.
        start_end_states: (2, B) int32.
    """

    edges: torch.Tensor
    weights: torch.Tensor
    start_end_states: torch.Tensor


def _sequence_edges(labels: list[int], blank: int, label_loop: bool) -> list[tuple[int, int, int]]:
    """Edges of one sequence. States: 2u after u labels, 2u + 1 label u; a sink for what is forbidden; the end."""
    count = len(labels)
    sink, end = 2 * count + 1, 2 * count + 2
    last = {2 * count} | ({2 * count - 1} if count else set())
    edges: list[tuple[int, int, int]] = []
    for state in range(2 * count + 1):
        u = state // 2
        if state % 2 == 0:
            found = [(state, blank)] + ([(state + 1, labels[u])] if u < count else [])
            allowed = [True] * len(found)
        else:
            found = [(state, labels[u]), (state + 1, blank)]
            allowed = [label_loop, True]
            if u + 1 < count:
                may_skip = not label_loop or labels[u] != labels[u + 1]
                found.append((state + 2, labels[u + 1] if may_skip else blank))
                allowed.append(may_skip)
        edges += [(state, to if ok else sink, label) for (to, label), ok in zip(found, allowed, strict=True)]
        # In place of several final states, what leads into one of the last two leads to the end as well.
        edges += [
            (state, end if ok else sink, label)
            for (to, label), ok in zip(found, allowed, strict=True)
            if to in last
        ]
    return edges


def ctc_edges(
    targets: torch.Tensor, target_lengths: torch.Tensor, *, blank: int, label_loop: bool = True
) -> ReturnnEdges:
    """The automata of `get_ctc_fsa_fast_bw` for targets (B, U) and their lengths (B,), with all its places."""
    longest = targets.shape[1]
    places, states = 5 * (longest - 1) + 10, 2 * longest + 3
    rows: list[tuple[int, int, int, int]] = []
    weights: list[float] = []
    ends = []
    for b, count in enumerate(target_lengths.tolist()):
        offset = b * states
        edges = _sequence_edges(targets[b, :count].tolist(), blank, label_loop)
        unused = places - len(edges)
        sink = offset + 2 * count + 1
        rows += [(offset + source, offset + to, label, b) for source, to, label in edges]
        rows += [(sink, sink, blank, b)] * unused
        weights += [0.0] * len(edges) + [float("inf")] * unused
        ends.append((offset, offset + 2 * count + 2))
    return ReturnnEdges(
        torch.tensor(rows, dtype=torch.int32).reshape(-1, 4).T.contiguous(),
        torch.tensor(weights, dtype=torch.float32),
        torch.tensor(ends, dtype=torch.int32).reshape(-1, 2).T.contiguous(),
    )


def staircase(lengths: torch.Tensor) -> FsaBatch:
    """Automata with n + 1 states for sequences of n frames: a path climbs from 0 to n by any steps.

    State i > 0 emits i on its way to any higher one; state 0 emits any t < j on its way to j. All weights are 0.
    """
    graphs = []
    for count in lengths.tolist():
        arcs = [(0, j, t) for j in range(1, count + 1) for t in range(j)]
        arcs += [(i, j, i) for i in range(1, count) for j in range(i + 1, count + 1)]
        graphs.append(Fsa(torch.tensor(arcs, dtype=torch.int64).reshape(-1, 3), num_states=count + 1))
    return FsaBatch.from_list(graphs)
