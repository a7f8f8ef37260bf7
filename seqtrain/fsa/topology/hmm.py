"""Hidden Markov models of label sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seqtrain.fsa._arrays import Integers, target_arrays
from seqtrain.fsa.batch import FsaBatch
from seqtrain.fsa.topology.chains import Chains, Inventory, join_chains, shortest_visit
from seqtrain.fsa.topology.transitions import Transitions

__all__ = ["hmm"]

_START = Transitions(loop=-np.inf)


def hmm(
    targets: Integers,
    target_lengths: Integers,
    *,
    states_per_label: int = 1,
    columns: Sequence[Sequence[int]] | None = None,
    transitions: Transitions = Transitions(),  # noqa: B008  # frozen, so that one shared default is safe
) -> FsaBatch:
    """Left-to-right hidden Markov models: each label a chain of states, each state one or more frames.

    Rabiner 1989, "A tutorial on hidden Markov models". What a state pays is described at `Transitions`; the
    whole sequence is one pronunciation, whose first and last state no skip jumps over.

    State 0 is the start; the states of the labels follow in order, the last one is final and pays its forward
    weight there. Arcs in the order of their source, then of their destination (loop, forward, skip); an arc
    carries the column of its destination. Without targets only the empty sequence is accepted.

    Args:
        targets: (B, U) integers, padded.
        target_lengths: (B,) integers.
        states_per_label: n; state k of label p has the column p * n + k.
        columns: instead, for each label the columns of its states (any number of them; columns may be
            shared).
        transitions: loop, forward and skip weights.

    Raises:
        LabelError: a negative target, or one that `columns` doesn't describe.
        ShapeError, DtypeError, ArgumentError: wrong shapes, a length outside 0…U, not integers, no states.
    """
    inventory = Inventory(states_per_label=states_per_label, columns=columns, name="states_per_label")
    labels, lengths = target_arrays(targets, target_lengths, blank=None)
    batch, longest = labels.shape
    inside = np.arange(longest) < lengths[:, None]
    state_columns, sizes = inventory.expand(labels[inside])

    # Chains in turn: the start of an utterance, its labels.
    utterance = np.repeat(np.arange(batch), lengths)
    chain_lengths = np.ones((batch, 2), dtype=np.int64)
    chain_lengths[:, 1] = np.bincount(utterance, weights=sizes, minlength=batch)
    first = np.cumsum(chain_lengths.ravel())[0::2] - 1
    all_columns = np.insert(state_columns, first - np.arange(batch), 0)
    filled = np.flatnonzero(lengths > 0)
    chains = Chains(
        columns=all_columns,
        lengths=chain_lengths.ravel(),
        kinds=np.tile(np.array([1, 0]), batch),
        utterances=np.repeat(np.arange(batch), 2),
        joins=np.stack((2 * filled, 2 * filled + 1), axis=1),
        join_weights=np.zeros(filled.size),
        finals=2 * np.arange(batch) + (lengths > 0),
        final_weights=np.zeros(batch),
    )
    shortest = np.where(lengths > 0, shortest_visit(chain_lengths[:, 1], transitions), 0)
    return join_chains(chains, (transitions, _START), batch=batch, min_length=shortest)
