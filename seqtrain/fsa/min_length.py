"""Fewest frames that each automaton of a batch accepts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["min_length"]

_FAR = np.iinfo(np.int64).max // 2


def _in_state_order(
    source: NDArray[np.int64], destination: NDArray[np.int64], distance: NDArray[np.int64]
) -> None:
    """Distances where every arc leads to a higher state: one pass over the arcs in the order of their
    sources.

    Such automata (all left-to-right topologies) are long and thin: a level has only a few arcs, so that array
    operations per level would cost far more than this plain loop.
    """
    order = np.argsort(source, kind="stable")
    best = distance.tolist()
    for s, d in zip(source[order].tolist(), destination[order].tolist(), strict=True):
        reached = best[s] + 1
        if reached < best[d]:
            best[d] = reached
    distance[:] = best


def _by_levels(
    source: NDArray[np.int64], destination: NDArray[np.int64], distance: NDArray[np.int64]
) -> None:
    """Distances in any automata: breadth-first search of all graphs at once, one level of states per step."""
    order = np.argsort(source, kind="stable")
    destination = destination[order]
    first = np.searchsorted(source[order], np.arange(distance.size + 1))
    frontier = np.flatnonzero(distance == 0)
    level = 0
    while frontier.size:
        level += 1
        counts = first[frontier + 1] - first[frontier]
        ends = np.cumsum(counts)
        arcs = np.arange(ends[-1]) + np.repeat(first[frontier] - ends + counts, counts)
        reached = destination[arcs]
        frontier = np.unique(reached[distance[reached] == _FAR])
        distance[frontier] = level


def min_length(
    *,
    arcs: NDArray[np.int32],
    weights: NDArray[np.floating],
    final_states: NDArray[np.int32],
    final_weights: NDArray[np.floating],
    starts: NDArray[np.int32],
    num_states: NDArray[np.int32],
    arc_offsets: NDArray[np.int64],
    final_offsets: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Fewest arcs from the start to a final state, for G automata in the flat layout of `FsaBatch`.

    Arcs and final states of weight -inf don't count.

    Returns:
        (G,) int64, -1 where an automaton accepts nothing.
    """
    first_state = np.zeros(num_states.size + 1, dtype=np.int64)
    np.cumsum(num_states, out=first_state[1:])
    shift = np.repeat(first_state[:-1], np.diff(arc_offsets))
    use = (weights > -np.inf) & (arcs[:, 0] != arcs[:, 1])
    source, destination = (arcs[use, 0] + shift[use]), (arcs[use, 1] + shift[use])
    distance = np.full(first_state[-1], _FAR, dtype=np.int64)
    distance[first_state[:-1] + starts] = 0
    if source.size:
        (_in_state_order if bool((source < destination).all()) else _by_levels)(source, destination, distance)

    at_finals = distance[final_states + np.repeat(first_state[:-1], np.diff(final_offsets))]
    at_finals[final_weights == -np.inf] = _FAR
    # Graphs without final states have no segment: reduceat would give them the next graph's first value.
    filled = np.flatnonzero(np.diff(final_offsets))
    shortest = np.full(num_states.size, _FAR, dtype=np.int64)
    if filled.size:
        shortest[filled] = np.minimum.reduceat(at_finals, final_offsets[filled])
    shortest[shortest >= _FAR] = -1
    return shortest
