"""Automata as RASR exports them and RETURNN batches them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import FsaError
from seqtrain.fsa._arrays import Integers, int32_array, integer_array

__all__ = ["local_structure"]


def _state_ranges(
    edges: NDArray[np.int64], start_end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lowest and highest state number of each sequence, among its edges, start and end."""
    low, high = start_end.min(axis=0), start_end.max(axis=0)
    for states in edges[:2]:
        np.minimum.at(low, edges[3], states)
        np.maximum.at(high, edges[3], states)
    return low, high


def local_structure(
    num_states: int | Integers | None, edges: Integers, start_end: Integers
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """The structure of a flat batch with local state numbers, and the order in which it takes the edges.

    Arguments and errors as in `FsaBatch.from_rasr`.
    """
    rows = integer_array(edges, argument="edges", shape=(4, None))
    ends = integer_array(start_end, argument="start_end", shape=(2, None))
    batch = ends.shape[1]
    source, destination, label, sequence = rows
    stray = np.flatnonzero((sequence < 0) | (sequence >= batch))
    if stray.size:
        edge = int(stray[0])
        raise FsaError(
            f"edges: edge {edge} belongs to sequence {sequence[edge]}, but start_end has {batch} sequences",
            sequence=int(sequence[edge]),
            arc=edge,
        )
    if num_states is None or isinstance(num_states, int):
        first, highest = _state_ranges(rows, ends)
        sizes = highest - first + 1
        if num_states is not None and batch and int(highest.max()) >= num_states:
            worst = int(highest.argmax())
            raise FsaError(
                f"sequence {worst} uses the state {highest[worst]}, but num_states is {num_states}",
                sequence=worst,
                state=int(highest[worst]),
            )
    else:
        sizes = integer_array(num_states, argument="num_states", shape=(batch,))
        first = np.cumsum(sizes) - sizes
    order = np.argsort(sequence, kind="stable")
    sequence = sequence[order]
    columns = (source[order] - first[sequence], destination[order] - first[sequence], label[order])
    structure = {
        "arcs": int32_array(np.stack(columns, axis=1), argument="edges"),
        "num_states": sizes,
        "starts": ends[0] - first,
        "final_states": ends[1] - first,
        "arc_offsets": np.searchsorted(sequence, np.arange(batch + 1)),
        "final_offsets": np.arange(batch + 1),
    }
    return structure, order
