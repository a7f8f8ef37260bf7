"""Each target exactly one frame."""

from __future__ import annotations

import numpy as np

from seqtrain.fsa._arrays import Integers, target_arrays
from seqtrain.fsa.batch import FsaBatch
from seqtrain.fsa.topology._assemble import assemble

__all__ = ["linear"]


def linear(targets: Integers, target_lengths: Integers) -> FsaBatch:
    """Automata that accept just the targets, one frame each: with U targets, exactly U frames.

    States 0 … U, start 0, final U; arc u leads from u to u + 1 with label `targets[u]`. Weights are 0.

    Args:
        targets: (B, U) integers, padded.
        target_lengths: (B,) integers.

    Raises:
        LabelError: a negative target.
        ShapeError, DtypeError: wrong shapes, a length outside 0…U, not integers.
    """
    labels, lengths = target_arrays(targets, target_lengths, blank=None)
    inside = np.arange(labels.shape[1]) < lengths[:, None]
    source = np.nonzero(inside)[1]
    arcs = np.stack((source, source + 1, labels[inside]), axis=1).astype(np.int32)
    ones = np.ones_like(lengths)
    return assemble(
        arcs=arcs,
        weights=None,
        final_states=lengths.astype(np.int32),
        final_weights=None,
        num_states=lengths + 1,
        arc_counts=lengths,
        final_counts=ones,
        min_length=lengths,
    )
