"""Chains of states (pronunciations, silences) joined by arcs: what the HMM topologies are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import ArgumentError, LabelError, ShapeError
from seqtrain.fsa._arrays import float32_array, int32_array
from seqtrain.fsa.batch import FsaBatch
from seqtrain.fsa.topology._assemble import assemble, offsets_of
from seqtrain.fsa.topology.transitions import Transitions

__all__ = ["Chains", "Inventory", "join_chains", "shortest_visit"]


class Inventory:
    """Which columns of the scores the states of each label (phone) have.

    Args:
        states_per_label: with `columns` None, state k of label p has the column p * states_per_label + k.
        columns: for each label its states' columns; labels may have different numbers of states, and share
            columns.

    Raises:
        ArgumentError, ShapeError: no states, a negative column.
    """

    def __init__(self, *, states_per_label: int, columns: Sequence[Sequence[int]] | None, name: str) -> None:
        self._name = name
        if columns is None:
            if states_per_label < 1:
                raise ArgumentError(f"{name} must be at least 1, got {states_per_label}", argument=name)
            self._uniform = states_per_label
            return
        if states_per_label != 1:
            raise ArgumentError(f"pass either {name} or columns, not both", argument=name)
        self._uniform = 0
        sizes = np.array([len(states) for states in columns], dtype=np.int64)
        if (sizes == 0).any():
            label = int(np.flatnonzero(sizes == 0)[0])
            raise ShapeError(f"columns[{label}] is empty: a label has at least one state", argument="columns")
        self._sizes = sizes
        self._first = offsets_of(sizes)
        self._columns = np.array([column for states in columns for column in states], dtype=np.int64)
        if self._columns.size and self._columns.min() < 0:
            label = int(np.searchsorted(self._first, self._columns.argmin(), side="right")) - 1
            raise ArgumentError(f"columns[{label}] holds {self._columns.min()}", argument="columns")

    def expand(self, labels: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The columns of all states of the labels in a row, and the number of states of each label.

        Raises:
            LabelError: `columns` doesn't have that label, or its column doesn't fit int32; `position` counts
                through all labels.
        """
        known = self._sizes.size if not self._uniform else None
        wrong = labels < 0 if known is None else (labels < 0) | (labels >= known)
        if wrong.any():
            position = int(np.flatnonzero(wrong)[0])
            label = int(labels[position])
            limit = "0 or more" if known is None else f"one of the {known} that columns describes"
            raise LabelError(
                f"label {label} must be {limit}",
                argument="labels",
                utterance=0,
                position=position,
                label=label,
                num_labels=known,
            )
        if self._uniform:
            columns = (labels[:, None] * self._uniform + np.arange(self._uniform)).ravel()
            return int32_array(columns, argument="columns"), np.full(labels.size, self._uniform)
        sizes = self._sizes[labels]
        ends = np.cumsum(sizes)
        inside = np.arange(ends[-1] if ends.size else 0) - np.repeat(ends - sizes, sizes)
        columns = self._columns[np.repeat(self._first[labels], sizes) + inside]
        return int32_array(columns, argument="columns"), sizes


@dataclass(frozen=True)
class Chains:
    """Left-to-right chains of states, and the arcs that join them. The first chain of each utterance is its
    start: one state, which nothing enters.

    Attributes:
        columns: (ΣL,) int32, each state's column (of a start state: anything).
        lengths: (C,) number of states of each chain.
        kinds: (C,) index into the transitions.
        utterances: (C,) utterance of each chain, not falling.
        joins: (J, 2) chains; an arc leads from the last state of the one to the first of the other.
        join_weights: (J,) what such an arc pays on top of the forward weight of its source.
        finals: (F,) chains whose last state is final, not falling.
        final_weights: (F,) what leaving there pays on top of the forward weight.
    """

    columns: NDArray[np.int32]
    lengths: NDArray[np.int64]
    kinds: NDArray[np.int64]
    utterances: NDArray[np.int64]
    joins: NDArray[np.int64]
    join_weights: NDArray[np.float64]
    finals: NDArray[np.int64]
    final_weights: NDArray[np.float64]


def shortest_visit(lengths: NDArray[np.int64], transitions: Transitions) -> NDArray[np.int64]:
    """Fewest frames in chains of these lengths: a skip halves the way from the first state to the last."""
    return lengths if transitions.skip == -np.inf else 1 + lengths // 2


def join_chains(
    chains: Chains, transitions: Sequence[Transitions], *, batch: int, min_length: NDArray[np.int64]
) -> FsaBatch:
    """The automata: states in the order of the chains, arcs in the order of source, then destination.

    `min_length` (B,) is the fewest frames, provided that no weight is -inf. An arc carries the column of its
    destination. Loops, forward and skip arcs inside chains whose weight is
    -inf are left out.
    """
    loop, forward, skip = (
        np.array([getattr(kind, name) for kind in transitions], dtype=np.float64)
        for name in ("loop", "forward", "skip")
    )
    first = offsets_of(chains.lengths)
    last = first[1:] - 1
    states = int(first[-1])
    state = np.arange(states)
    kind_of = np.repeat(chains.kinds, chains.lengths)
    left = np.repeat(last, chains.lengths) - state  # states of the chain still to come

    sources: list[NDArray[Any]] = []
    jumps: list[NDArray[Any]] = []
    weights: list[NDArray[np.float64]] = []
    for jump, weight in enumerate((loop, forward, skip)):
        here = state[(left >= jump) & (weight[kind_of] > -np.inf)]
        sources.append(here)
        jumps.append(here + jump)
        weights.append(weight[kind_of[here]])
    sources.append(last[chains.joins[:, 0]])
    jumps.append(first[chains.joins[:, 1]])
    weights.append(chains.join_weights + forward[chains.kinds[chains.joins[:, 0]]])

    source, destination, arc_weights = (np.concatenate(parts) for parts in (sources, jumps, weights))
    order = np.argsort(source * states + destination)
    source, destination = source[order], destination[order]

    num_states = np.bincount(chains.utterances, weights=chains.lengths, minlength=batch).astype(np.int64)
    utterance_of = np.repeat(chains.utterances, chains.lengths)
    offset = offsets_of(num_states)[:-1]
    shift = offset[utterance_of[source]]
    arcs = np.empty((source.size, 3), dtype=np.int32)
    arcs[:, 0] = source - shift
    arcs[:, 1] = destination - shift
    arcs[:, 2] = chains.columns[destination]
    final_utterances = chains.utterances[chains.finals]
    return assemble(
        arcs=arcs,
        weights=float32_array(arc_weights[order], argument="transitions"),
        final_states=(last[chains.finals] - offset[final_utterances]).astype(np.int32),
        final_weights=float32_array(
            chains.final_weights + forward[chains.kinds[chains.finals]], argument="transitions"
        ),
        num_states=num_states,
        arc_counts=np.bincount(utterance_of[source], minlength=batch),
        final_counts=np.bincount(final_utterances, minlength=batch),
        min_length=min_length,
    )
