"""Recurrent neural aligner: CTC without label repetitions."""

from __future__ import annotations

import numpy as np

from seqtrain.fsa._arrays import Integers, target_arrays
from seqtrain.fsa.batch import FsaBatch
from seqtrain.fsa.topology._assemble import assemble
from seqtrain.fsa.topology.ctc import check_blank

__all__ = ["rna"]


def rna(targets: Integers, target_lengths: Integers, *, blank: int = 0) -> FsaBatch:
    """Automata of the label sequences that become the targets when blanks are removed: each target on one
    frame.

    Sak et al. 2017, "Recurrent neural aligner". Unlike in CTC repeated labels aren't merged, so that two
    equal targets need no blank between them.

    With U targets there are the states 0 … U, start 0, final U: state u stands for u targets seen. Arcs in
    the order of their source: the loop with blank, the arc to u + 1 with target u. Weights are 0.

    Args:
        targets: (B, U) integers, padded.
        target_lengths: (B,) integers.
        blank: column of the blank.

    Raises:
        LabelError: a negative target, or one that is the blank.
        ShapeError, DtypeError: wrong shapes, a length outside 0…U, not integers.
    """
    check_blank(blank)
    labels, lengths = target_arrays(targets, target_lengths, blank=blank)
    batch, longest = labels.shape
    exists = np.empty((batch, longest + 1, 2), dtype=bool)
    exists[:, :, 0] = np.arange(longest + 1) <= lengths[:, None]
    exists[:, :, 1] = np.arange(longest + 1) < lengths[:, None]
    label_of = np.full((batch, longest + 1, 2), blank, dtype=np.int32)
    label_of[:, :longest, 1] = labels
    _, source, jump = np.nonzero(exists)
    return assemble(
        arcs=np.stack((source, source + jump, label_of[exists]), axis=1).astype(np.int32),
        weights=None,
        final_states=lengths.astype(np.int32),
        final_weights=None,
        num_states=lengths + 1,
        arc_counts=2 * lengths + 1,
        final_counts=np.ones_like(lengths),
        min_length=lengths,
    )
