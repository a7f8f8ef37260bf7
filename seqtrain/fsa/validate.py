"""Checks of automata in the flat layout of `FsaBatch`, vectorised, since they run in every training step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import FsaError

__all__ = ["check_automata", "check_weights"]


def _name(sequence: int, tags: tuple[str, ...] | None, single: bool) -> str:
    if single:
        return ""
    return f"sequence {sequence} ({tags[sequence]}), " if tags is not None else f"sequence {sequence}, "


def _check_offsets(offsets: NDArray[np.int64], total: int, *, name: str) -> None:
    if offsets[0] != 0 or offsets[-1] != total:
        raise FsaError(f"{name} must run from 0 to {total}, got {offsets[0]} … {offsets[-1]}")
    falls = np.flatnonzero(np.diff(offsets) < 0)
    if falls.size:
        sequence = int(falls[0])
        raise FsaError(
            f"{name} falls from {offsets[sequence]} to {offsets[sequence + 1]} at sequence {sequence}",
            sequence=sequence,
        )


def check_weights(
    weights: NDArray[Any],
    offsets: NDArray[np.int64],
    *,
    states: NDArray[np.int32] | None,
    tags: tuple[str, ...] | None,
    single: bool,
) -> None:
    """Refuse NaN and +inf among log weights of arcs, or of final states where `states` (ΣF,) is given.

    -inf is legal: the arc is forbidden.

    Raises:
        FsaError: names sequence and arc, or sequence and state.
    """
    bad = np.flatnonzero(~(weights < np.inf))
    if not bad.size:
        return
    index = int(bad[0])
    sequence = int(np.searchsorted(offsets, index, side="right")) - 1
    where = _name(sequence, tags, single)
    rule = "a log weight must be finite or -inf"
    if states is None:
        arc = index - int(offsets[sequence])
        raise FsaError(
            f"{where}arc {arc} has the weight {weights[index]}: {rule}", sequence=sequence, arc=arc
        )
    state = int(states[index])
    raise FsaError(
        f"{where}state {state} has the final weight {weights[index]}: {rule}", sequence=sequence, state=state
    )


def _check_arcs(
    arcs: NDArray[np.int32],
    num_states: NDArray[np.int32],
    arc_offsets: NDArray[np.int64],
    tags: tuple[str, ...] | None,
    single: bool,
) -> None:
    if not arcs.shape[0]:
        return
    limit = np.repeat(num_states, np.diff(arc_offsets))
    ends = arcs[:, :2]
    bad = np.flatnonzero(((ends < 0) | (ends >= limit[:, None])).any(axis=1) | (arcs[:, 2] < 0))
    if not bad.size:
        return
    index = int(bad[0])
    sequence = int(np.searchsorted(arc_offsets, index, side="right")) - 1
    arc = index - int(arc_offsets[sequence])
    source, destination, label = (int(value) for value in arcs[index])
    states = int(num_states[sequence])
    where = f"{_name(sequence, tags, single)}arc {arc} ({source} → {destination}, label {label}): "
    for role, state in (("source", source), ("destination", destination)):
        if not 0 <= state < states:
            raise FsaError(
                f"{where}its {role} state {state} is outside the {states} states 0…{states - 1}",
                sequence=sequence,
                arc=arc,
                state=state,
            )
    raise FsaError(
        f"{where}the label is negative: a label is a column of the scores, every arc consumes one frame "
        "(no epsilon)",
        sequence=sequence,
        arc=arc,
        state=source,
    )


def _check_finals(
    final_states: NDArray[np.int32],
    num_states: NDArray[np.int32],
    final_offsets: NDArray[np.int64],
    tags: tuple[str, ...] | None,
    single: bool,
) -> None:
    if not final_states.size:
        return
    counts = np.diff(final_offsets)
    limit = np.repeat(num_states, counts)
    bad = np.flatnonzero((final_states < 0) | (final_states >= limit))
    if bad.size:
        index = int(bad[0])
        sequence = int(np.searchsorted(final_offsets, index, side="right")) - 1
        state, states = int(final_states[index]), int(num_states[sequence])
        raise FsaError(
            f"{_name(sequence, tags, single)}final state {state} is outside "
            f"the {states} states 0…{states - 1}",
            sequence=sequence,
            state=state,
        )
    first_state = np.cumsum(num_states, dtype=np.int64) - num_states
    unique = np.sort(final_states + np.repeat(first_state, counts))
    twice = np.flatnonzero(unique[1:] == unique[:-1])
    if twice.size:
        number = int(unique[twice[0]])
        sequence = int(np.searchsorted(first_state, number, side="right")) - 1
        state = number - int(first_state[sequence])
        raise FsaError(
            f"{_name(sequence, tags, single)}final state {state} is given twice",
            sequence=sequence,
            state=state,
        )


def check_automata(
    *,
    arcs: NDArray[np.int32],
    weights: NDArray[Any],
    final_states: NDArray[np.int32],
    final_weights: NDArray[Any],
    starts: NDArray[np.int32],
    num_states: NDArray[np.int32],
    arc_offsets: NDArray[np.int64],
    final_offsets: NDArray[np.int64],
    tags: tuple[str, ...] | None = None,
    single: bool = False,
) -> None:
    """Check G automata in the flat layout: sizes, then every state, label and weight.

    Raises:
        FsaError: the first thing found wrong, with sequence, arc and state as far as they apply; `single`
            leaves the sequence out of the message (the automaton stands alone).
    """
    _check_offsets(arc_offsets, arcs.shape[0], name="arc_offsets")
    _check_offsets(final_offsets, final_states.shape[0], name="final_offsets")
    empty = np.flatnonzero(num_states < 1)
    if empty.size:
        sequence = int(empty[0])
        raise FsaError(
            f"{_name(sequence, tags, single)}num_states is {num_states[sequence]}: "
            "an automaton has at least its start state",
            sequence=sequence,
        )
    outside = np.flatnonzero((starts < 0) | (starts >= num_states))
    if outside.size:
        sequence = int(outside[0])
        start, states = int(starts[sequence]), int(num_states[sequence])
        raise FsaError(
            f"{_name(sequence, tags, single)}the start state {start} is outside "
            f"the {states} states 0…{states - 1}",
            sequence=sequence,
            state=start,
        )
    _check_arcs(arcs, num_states, arc_offsets, tags, single)
    _check_finals(final_states, num_states, final_offsets, tags, single)
    check_weights(weights, arc_offsets, states=None, tags=tags, single=single)
    check_weights(final_weights, final_offsets, states=final_states, tags=tags, single=single)
