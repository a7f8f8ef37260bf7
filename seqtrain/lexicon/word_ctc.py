"""CTC automata of word sequences with pronunciation variants."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from seqtrain.fsa import Fsa, Word, WordStates

__all__ = ["word_ctc", "word_ctc_states"]


class _Graph:
    """States and arcs as they are laid down."""

    def __init__(self, blank: int) -> None:
        self.blank = blank
        self.num_states = 0
        self.arcs: list[tuple[int, int, int]] = []
        self.weights: list[float] = []
        # What each state stands for: position of the word, variant, position of the phone; -1 for blank.
        self.meaning: list[tuple[int, int, int]] = []
        # The states in which a path may end.
        self.final: list[int] = []

    def state(self, label: int, meaning: tuple[int, int, int] = (-1, -1, -1)) -> int:
        """A new state, in which `label` repeats."""
        self.num_states += 1
        self.meaning.append(meaning)
        self.arc(self.num_states - 1, self.num_states - 1, label)
        return self.num_states - 1

    def arc(self, source: int, destination: int, label: int, weight: float = 0.0) -> None:
        self.arcs.append((source, destination, label))
        self.weights.append(weight)


def word_ctc(words: Sequence[Word], *, blank: int) -> Fsa:
    """The automaton of the label sequences that collapse to one of the pronunciations of the words.

    Where each word has one variant of weight 0, this is `seqtrain.fsa.ctc` of its phones, state by state and
    arc by arc. A variant's log weight is paid on entering it. Between two words, as between two phones, a
    blank is optional unless the same phone stands on both sides.

    Args:
        words: for each word its variants (log weight, labels); no label is the blank.
        blank: column of the blank.
    """
    graph = _lay_out(words, blank)
    arcs = np.array(graph.arcs, dtype=np.int32)
    order = np.lexsort((arcs[:, 1], arcs[:, 0]))
    return Fsa(
        arcs[order],
        np.array(graph.weights, dtype=np.float32)[order],
        num_states=graph.num_states,
        final=dict.fromkeys(graph.final, 0.0),
    )


def word_ctc_states(utterances: Sequence[Sequence[Word]], *, blank: int) -> WordStates:
    """What the states of `word_ctc` stand for, called for each of `utterances`.

    States of blank, also those between the phones of a word, stand for no word; the state of a phone is 0.
    """
    graphs = [_lay_out(words, blank) for words in utterances]
    meaning = torch.tensor([m for graph in graphs for m in graph.meaning], dtype=torch.int64).reshape(-1, 3)
    word, variant, phone = meaning.unbind(1)
    offsets = torch.tensor([0, *itertools.accumulate(graph.num_states for graph in graphs)])
    state = torch.where(phone >= 0, 0, -1)
    return WordStates(word=word, variant=variant, phone=phone, state=state, offsets=offsets)


def _lay_out(words: Sequence[Word], blank: int) -> _Graph:
    graph = _Graph(blank)
    junction = graph.state(blank)  # blank before, between and after words
    ends: list[tuple[int, int]] = []  # (state, label) in which the word before may end
    for position, variants in enumerate(words):
        starts, ends_of_word = [], []
        for variant, (weight, labels) in enumerate(variants):
            state = graph.state(labels[0], (position, variant, 0))
            starts.append((state, labels[0], weight))
            for phone, (label, next_label) in enumerate(itertools.pairwise(labels), start=1):
                between = graph.state(blank)
                following = graph.state(next_label, (position, variant, phone))
                graph.arc(state, between, blank)
                graph.arc(between, following, next_label)
                if next_label != label:
                    graph.arc(state, following, next_label)
                state = following
            ends_of_word.append((state, labels[-1]))
        for start, label, weight in starts:
            graph.arc(junction, start, label, weight)
            for end, last_label in ends:
                if last_label != label:
                    graph.arc(end, start, label, weight)
        junction = graph.state(blank)
        for end, _ in ends_of_word:
            graph.arc(end, junction, blank)
        ends = ends_of_word
    graph.final = [*(end for end, _ in ends), junction]
    return graph
