"""Automata over frames, in the making: each arc consumes one frame, states have no order yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["FrameArcs", "FrameAutomaton"]


class FrameArcs(NamedTuple):
    """Arcs in columns, (A,) each.

    Attributes:
        source, target: states.
        number: of the allophone state consumed, `index | state << 26`: RASR sorts by it.
        label: its emission class.
        cost: -ln, finite.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    number: NDArray[np.int64]
    label: NDArray[np.int64]
    cost: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[FrameArcs]) -> FrameArcs:
        """The arcs of all parts, one part behind the other."""
        return cls(
            np.concatenate([part.source for part in parts]),
            np.concatenate([part.target for part in parts]),
            np.concatenate([part.number for part in parts]),
            np.concatenate([part.label for part in parts]),
            np.concatenate([part.cost for part in parts]),
        )

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[int, int, int, int, float]]) -> FrameArcs:
        """Arcs from rows (source, target, number, label, cost)."""
        integers = np.array([row[:4] for row in rows], dtype=np.int64).reshape(-1, 4).T
        source, target, number, label = integers
        return cls(source, target, number, label, np.array([row[4] for row in rows], dtype=np.float64))

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> FrameArcs:
        """The arcs at these places, in this order."""
        return FrameArcs(
            self.source[which], self.target[which], self.number[which], self.label[which], self.cost[which]
        )


@dataclass(frozen=True)
class FrameAutomaton:
    """State 0 is the start; loops aside there are no cycles.

    Attributes:
        num_states: S.
        arcs: loops included; those of a state stand in the order in which they were made.
        finals: state → cost of ending there.
    """

    num_states: int
    arcs: FrameArcs
    finals: Mapping[int, float]
