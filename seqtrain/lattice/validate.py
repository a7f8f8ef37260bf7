"""Checks of lattices in their flat layout, vectorised."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import FsaError
from seqtrain.fsa.validate import check_weights

__all__ = ["check_lattice"]

_Tags = tuple[str, ...] | None


def _name(sequence: int, tags: _Tags) -> str:
    return f"sequence {sequence} ({tags[sequence]})" if tags is not None else f"sequence {sequence}"


def _check_offsets(offsets: NDArray[np.int64], total: int, name: str) -> None:
    if offsets[0] != 0 or offsets[-1] != total:
        raise FsaError(f"{name} must run from 0 to {total}, got {offsets[0]} … {offsets[-1]}")
    falls = np.flatnonzero(np.diff(offsets) < 0)
    if falls.size:
        b = int(falls[0])
        raise FsaError(f"{name} falls from {offsets[b]} to {offsets[b + 1]} at sequence {b}", sequence=b)


def _arc_fault(source: int, destination: int, label: int, states: int, before: int) -> tuple[str, int]:
    """What is wrong with an arc of a lattice of that many states, and at which state."""
    for role, state in (("source", source), ("destination", destination)):
        if not 0 <= state < states:
            return f"its {role} state {state} is outside the {states} states 0…{states - 1}", state
    if source >= destination:
        return (
            "states must stand in topological order, source below destination: a lattice has no cycle "
            "(Lattice.from_fsa sorts)",
            source,
        )
    if label < 0:
        return "the label is negative: a label is a column of the scores", source
    return f"it leaves a state below that of the arc before it ({before}): sort the arcs by source", source


def _check_arcs(
    arcs: NDArray[np.int32],
    frames: NDArray[np.int32],
    arc_offsets: NDArray[np.int64],
    state_offsets: NDArray[np.int64],
    tags: _Tags,
) -> None:
    if not arcs.shape[0]:
        return
    counts = np.diff(arc_offsets)
    limit = np.repeat(np.diff(state_offsets), counts)
    source, destination, label = arcs[:, 0], arcs[:, 1], arcs[:, 2]
    before = np.concatenate(([0], source[:-1]))
    before[arc_offsets[:-1][counts > 0]] = 0
    wrong = (source < 0) | (destination >= limit) | (source >= destination) | (label < 0) | (source < before)
    bad = np.flatnonzero(wrong)
    if bad.size:
        flat = int(bad[0])
        b = int(np.searchsorted(arc_offsets, flat, side="right")) - 1
        arc = flat - int(arc_offsets[b])
        p, q, l = (int(value) for value in arcs[flat])
        fault, state = _arc_fault(p, q, l, int(limit[flat]), int(before[flat]))
        raise FsaError(
            f"{_name(b, tags)}, arc {arc} ({p} → {q}, label {l}): {fault}", sequence=b, arc=arc, state=state
        )
    first = np.repeat(state_offsets[:-1], counts)
    begin, end = frames[first + source], frames[first + destination]
    bad = np.flatnonzero(begin >= end)
    if bad.size:
        flat = int(bad[0])
        b = int(np.searchsorted(arc_offsets, flat, side="right")) - 1
        arc = flat - int(arc_offsets[b])
        raise FsaError(
            f"{_name(b, tags)}, arc {arc} ({source[flat]} → {destination[flat]}, label {label[flat]}) runs from frame "
            f"{begin[flat]} to frame {end[flat]}: every arc takes at least one frame",
            sequence=b,
            arc=arc,
            state=int(source[flat]),
        )


def _check_frames(
    frames: NDArray[np.int32], state_offsets: NDArray[np.int64], lengths: NDArray[np.int64], tags: _Tags
) -> None:
    counts = np.diff(state_offsets)
    limit = np.repeat(lengths, counts)
    bad = np.flatnonzero((frames < 0) | (frames > limit))
    if bad.size:
        flat = int(bad[0])
        b = int(np.searchsorted(state_offsets, flat, side="right")) - 1
        state = flat - int(state_offsets[b])
        raise FsaError(
            f"{_name(b, tags)}, state {state} stands at frame {frames[flat]}, outside 0…{lengths[b]}, the frames "
            "of its utterance",
            sequence=b,
            state=state,
        )


def _check_finals(
    final_states: NDArray[np.int32],
    final_offsets: NDArray[np.int64],
    state_offsets: NDArray[np.int64],
    tags: _Tags,
) -> None:
    if not final_states.size:
        return
    counts = np.diff(final_offsets)
    limit = np.repeat(np.diff(state_offsets), counts)
    bad = np.flatnonzero((final_states < 0) | (final_states >= limit))
    if bad.size:
        flat = int(bad[0])
        b = int(np.searchsorted(final_offsets, flat, side="right")) - 1
        state, states = int(final_states[flat]), int(limit[flat])
        raise FsaError(
            f"{_name(b, tags)}, final state {state} is outside the {states} states 0…{states - 1}",
            sequence=b,
            state=state,
        )
    owner = np.repeat(np.arange(counts.size), counts)
    unique = np.sort(final_states + state_offsets[:-1][owner])
    twice = np.flatnonzero(unique[1:] == unique[:-1])
    if twice.size:
        number = int(unique[twice[0]])
        b = int(np.searchsorted(state_offsets, number, side="right")) - 1
        state = number - int(state_offsets[b])
        raise FsaError(f"{_name(b, tags)}, final state {state} is given twice", sequence=b, state=state)


def check_lattice(
    *,
    arcs: NDArray[np.int32],
    weights: NDArray[Any],
    frames: NDArray[np.int32],
    final_states: NDArray[np.int32],
    final_weights: NDArray[Any],
    arc_offsets: NDArray[np.int64],
    state_offsets: NDArray[np.int64],
    final_offsets: NDArray[np.int64],
    lengths: NDArray[np.int64],
    tags: _Tags = None,
) -> None:
    """Raises FsaError for the first thing found wrong: names sequence, arc and state as far as they apply."""
    _check_offsets(arc_offsets, arcs.shape[0], "arc_offsets")
    _check_offsets(state_offsets, frames.shape[0], "state_offsets")
    _check_offsets(final_offsets, final_states.shape[0], "final_offsets")
    _check_arcs(arcs, frames, arc_offsets, state_offsets, tags)
    _check_frames(frames, state_offsets, lengths, tags)
    _check_finals(final_states, final_offsets, state_offsets, tags)
    check_weights(weights, arc_offsets, states=None, tags=tags, single=False)
    check_weights(final_weights, final_offsets, states=final_states, tags=tags, single=False)
