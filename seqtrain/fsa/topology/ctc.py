"""Connectionist temporal classification."""

from __future__ import annotations

import numpy as np

from seqtrain.errors import LabelError
from seqtrain.fsa._arrays import Integers, target_arrays
from seqtrain.fsa.batch import FsaBatch
from seqtrain.fsa.topology._assemble import assemble

__all__ = ["check_blank", "ctc"]


def check_blank(blank: int) -> None:
    """Raises LabelError for a negative blank."""
    if blank < 0:
        raise LabelError(
            f"blank is {blank}, but a label is a column of the scores, 0 or more",
            argument="blank",
            utterance=0,
            position=0,
            label=blank,
            num_labels=None,
        )


def ctc(targets: Integers, target_lengths: Integers, *, blank: int = 0) -> FsaBatch:
    """Automata of the label sequences that collapse to the targets: repetitions merged, then blanks removed.

    Graves et al. 2006, "Connectionist temporal classification", section 4.1: targets with a blank before,
    between and after them. A blank is optional, except between two equal targets.

    With U targets there are 2U + 1 states. State 2u, the start among them, stands for blank after u targets,
    state 2u + 1 for target u. Arcs in the order of their source, then of their destination: the loop, the arc
    to the next state, the arc that leaves the blank out; an arc carries the label of its destination. Final
    are the states 2U - 1 (if there is a target) and 2U. Weights are 0. Without targets any number of blanks
    is accepted, none among them.

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
    states = 2 * longest + 1

    # Label of each state, with two states of padding that no arc may reach.
    label_of = np.full((batch, states + 2), blank, dtype=np.int32)
    label_of[:, 1 : 2 * longest : 2] = labels

    # (B, states, 3) candidates: loop, next, skip of the blank.
    state = np.arange(states, dtype=np.int32)
    destination = state[:, None] + np.arange(3, dtype=np.int32)
    exists = destination <= 2 * lengths[:, None, None]
    exists &= (state <= 2 * lengths[:, None])[:, :, None]
    exists[:, :, 2] &= (state % 2 == 1) & (label_of[:, :states] != label_of[:, 2:])

    count = np.count_nonzero(exists, axis=(1, 2))
    utterance, source, jump = np.nonzero(exists)
    reached = source + jump
    arcs = np.stack((source, reached, label_of[utterance, reached]), axis=1).astype(np.int32)

    repeats = (labels[:, 1:] == labels[:, :-1]) & (np.arange(1, max(longest, 1)) < lengths[:, None])
    has_target = lengths > 0
    finals = np.stack((2 * lengths - 1, 2 * lengths), axis=1)
    is_final = np.stack((has_target, np.ones_like(has_target)), axis=1)
    return assemble(
        arcs=arcs,
        weights=None,
        final_states=finals[is_final].astype(np.int32),
        final_weights=None,
        num_states=2 * lengths + 1,
        arc_counts=count,
        final_counts=is_final.sum(axis=1),
        min_length=lengths + np.count_nonzero(repeats, axis=1),
    )
