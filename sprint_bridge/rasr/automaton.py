"""Automata as RASR's exporter writes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sprint_bridge.workers.frames import Frame
from sprint_bridge.workers.items import Automaton, array_of, check_labels, integer_of

__all__ = ["automaton_of_costs", "read_cost_automaton"]


def automaton_of_costs(
    num_states: int, edges: NDArray[np.uint32], costs: NDArray[np.float32], *, segment: str, num_labels: int
) -> Automaton:
    """The automaton of RASR's numbers; costs, -ln of probabilities, become log weights.

    Args:
        num_states: states are 0 … num_states - 1; the first is the start, the last the end.
        edges: (3 · E,), as RASR has it: all sources, all destinations, all labels.
        costs: (E,).
        segment: its name, for errors.
        num_labels: of the inventory.

    Raises:
        EngineError: it has labels that the inventory lacks.
    """
    automaton = Automaton(
        num_states=num_states,
        start=0,
        arcs=edges.reshape(3, -1).T.astype(np.int32, order="C"),
        # 0 - c rather than -c: a cost of 0 becomes 0.0, not -0.0.
        weights=0.0 - costs,
        final_states=np.array([num_states - 1], dtype=np.int64).astype(np.int32),
        final_weights=np.zeros(1, dtype=costs.dtype),
    )
    check_labels(automaton, segment=segment, num_labels=num_labels)
    return automaton


def read_cost_automaton(frame: Frame, *, segment: str, num_labels: int) -> Automaton:
    """The automaton of an answer that has RASR's own numbers.

    Raises:
        EngineError: it has labels that the inventory lacks.
        WorkerFailedError: the answer has none.
    """
    num_states = integer_of(frame, "num_states")
    costs = array_of(frame, "costs", ("float32",), (None,))
    edges = array_of(frame, "edges", ("uint32",), (3 * len(costs),))
    return automaton_of_costs(num_states, edges, costs, segment=segment, num_labels=num_labels)
