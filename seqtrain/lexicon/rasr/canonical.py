"""The form in which RASR hands out an automaton: states in topological order, arcs sorted and merged, one end."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seqtrain.lexicon.rasr.frames import FrameArcs, FrameAutomaton

__all__ = ["ExportedAutomaton", "canonical"]


class ExportedAutomaton(NamedTuple):
    """An automaton as RASR exports it; the start is state 0, the only end the last state, which costs nothing.

    Attributes:
        num_states: S.
        edges: (3, A) int64, rows from, to, emission class.
        costs: (A,) float64, -ln.
    """

    num_states: int
    edges: NDArray[np.int64]
    costs: NDArray[np.float64]


def canonical(automaton: FrameAutomaton) -> ExportedAutomaton | None:
    """Brings an automaton into RASR's form; None if it accepts nothing.

    * States are numbered in topological order (`_topological`).
    * Arcs are sorted by (to - from, to, from): all loops first, then those to the next state, and so on.
    * Neighbours in that order with the same states and class are merged into one, their probabilities added. So costs
      are not normalized, and can be negative: silence that may loop and be repeated has both on one arc.
    * If there are several ends, or ending costs something, a last state is added. Arcs into an old end, its loop
      included, are copied to it with the cost of ending on top; the copies stand behind all others. An old end that is
      the start is lost thereby.
    """
    # By source, then by allophone state, as RASR has them when it goes through the states.
    order = np.lexsort((automaton.arcs.target, automaton.arcs.number, automaton.arcs.source))
    arcs = automaton.arcs.take(order)
    numbers, size = _topological(arcs, automaton.num_states)
    finals = {int(numbers[state]): cost for state, cost in automaton.finals.items() if numbers[state] >= 0}
    if not finals:
        return None

    arcs = arcs.take(numbers[arcs.source] >= 0)
    source, target, label, cost = numbers[arcs.source], numbers[arcs.target], arcs.label, arcs.cost
    place = (target - source) * size + target
    order = np.argsort(place, kind="stable")
    place, label = place[order], label[order]
    new = np.ones(len(place), dtype=np.bool_)
    new[1:] = (place[1:] != place[:-1]) | (label[1:] != label[:-1])
    source, target, label, cost = source[order][new], target[order][new], label[new], cost[order]
    if not new.all():
        cost = -np.logaddexp.reduceat(-cost, np.flatnonzero(new))

    if finals != {size - 1: 0.0}:
        ending = np.full(size, np.inf)
        ending[list(finals)] = list(finals.values())
        into = ending[target] < np.inf
        source = np.concatenate((source, source[into]))
        label = np.concatenate((label, label[into]))
        cost = np.concatenate((cost, cost[into] + ending[target[into]]))
        target = np.concatenate((target, np.full(np.count_nonzero(into), size)))
        size += 1
    return ExportedAutomaton(size, np.stack((source, target, label)), cost)


def _topological(arcs: FrameArcs, num_states: int) -> tuple[NDArray[np.int64], int]:
    """New numbers of the states, so that loops aside all arcs lead to higher ones, and how many states are reached.

    Of a state that isn't reached the number is -1. States get ranks as they are discovered: the arcs of a state in
    their order, the state discovered last explored first. Then they are numbered: of all states whose predecessors have
    a number the one of lowest rank is next.

    Args:
        arcs: sorted by source.
    """
    step = arcs.source != arcs.target
    sources, targets = arcs.source[step], arcs.target[step]
    bounds = np.searchsorted(sources, np.arange(num_states + 1)).tolist()
    target_list = targets.tolist()
    onward = [target_list[bounds[state] : bounds[state + 1]] for state in range(num_states)]

    ranks = [-1] * num_states
    ranks[0] = 0
    by_rank = [0]
    predecessors = [0] * num_states
    waiting = [0]
    while waiting:
        for target in onward[waiting.pop()]:
            predecessors[target] += 1
            if ranks[target] < 0:
                ranks[target] = len(by_rank)
                by_rank.append(target)
                waiting.append(target)
    numbers = [-1] * num_states
    count = 0
    ready = [0]
    while ready:
        state = by_rank[heapq.heappop(ready)]
        numbers[state] = count
        count += 1
        for target in onward[state]:
            predecessors[target] -= 1
            if not predecessors[target]:
                heapq.heappush(ready, ranks[target])
    return np.array(numbers), count
