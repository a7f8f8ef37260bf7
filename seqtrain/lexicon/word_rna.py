"""RNA automata of word sequences with pronunciation variants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seqtrain.fsa import Fsa, Word

__all__ = ["word_rna"]


def word_rna(words: Sequence[Word], *, blank: int) -> Fsa:
    """The automaton of the label sequences that become one of the pronunciations of the words when blanks are removed.

    Where each word has one variant of weight 0, this is `seqtrain.fsa.rna` of its phones, state by state and arc by
    arc. A variant's log weight is paid on entering it. States stand for what has been said; blank loops on each.

    Args:
        words: for each word its variants (log weight, labels); no label is the blank.
        blank: column of the blank.
    """
    arcs: list[tuple[int, int, int]] = []
    weights: list[float] = []
    junction, num_states = 0, 1  # where the words before have been said
    for variants in words:
        # Variants meet where the word has been said, behind the states inside all of them.
        end = num_states + sum(len(labels) - 1 for _, labels in variants)
        for weight, labels in variants:
            source = junction
            for place, label in enumerate(labels, start=1):
                target = end if place == len(labels) else num_states
                arcs.append((source, target, label))
                weights.append(weight if place == 1 else 0.0)
                source = target
                num_states += place < len(labels)
        junction, num_states = end, end + 1
    arcs += [(state, state, blank) for state in range(num_states)]
    weights += [0.0] * num_states
    rows = np.array(arcs, dtype=np.int32)
    # Stable: variants of one label keep the lexicon's order.
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    return Fsa(rows[order], np.array(weights, dtype=np.float32)[order], num_states=num_states)
