"""Candidates for arcs in a dense grid, turned into the flat layout of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seqtrain.fsa.batch import FsaBatch

__all__ = ["assemble", "offsets_of"]


def offsets_of(sizes: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """(G + 1,) running sums from 0."""
    offsets = np.zeros(sizes.shape[0] + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def assemble(
    *,
    arcs: NDArray[np.int32],
    weights: NDArray[np.float32] | None,
    final_states: NDArray[np.int32],
    final_weights: NDArray[np.float32] | None,
    num_states: NDArray[np.integer[Any]],
    arc_counts: NDArray[np.integer[Any]],
    final_counts: NDArray[np.integer[Any]],
    min_length: NDArray[np.int64] | None = None,
) -> FsaBatch:
    """A batch that is right by construction, start state 0 everywhere; weights of None are zeros.

    `min_length` (G,), where a topology knows it, saves the search for it.
    """
    zeros = np.zeros
    parts = {
        "arcs": arcs,
        "weights": zeros(arcs.shape[0], dtype=np.float32) if weights is None else weights,
        "final_states": final_states,
        "final_weights": zeros(final_states.shape[0], dtype=np.float32)
        if final_weights is None
        else final_weights,
        "starts": zeros(num_states.shape[0], dtype=np.int32),
        "num_states": num_states.astype(np.int32),
        "arc_offsets": offsets_of(arc_counts),
        "final_offsets": offsets_of(final_counts),
    }
    derived = {} if min_length is None else {"min_length": torch.from_numpy(min_length)}
    tensors = {name: torch.from_numpy(array) for name, array in parts.items()}
    return FsaBatch._from_checked(tensors, derived=derived)
