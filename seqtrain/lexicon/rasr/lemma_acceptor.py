"""Lemma sequences of a transcript: its words, with silence before each of them and at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from seqtrain.lexicon.rasr.lexicon import Lemma

__all__ = ["LemmaAcceptor", "lemma_acceptor"]


@dataclass
class LemmaAcceptor:
    """An acyclic graph of lemmas, loops of silence aside; state 0 is the start.

    Attributes:
        arcs: for each state (lemma, next state, cost).
        finals: state → cost of ending there.
    """

    arcs: list[list[tuple[Lemma, int, float]]] = field(default_factory=list)
    finals: dict[int, float] = field(default_factory=dict)

    def begins(self, state: int) -> frozenset[int]:
        """The phonemes with which the lemmas behind a state begin."""
        return frozenset(phonemes[0] for lemma, _, _ in self.arcs[state] for phonemes, _ in lemma.variants)


def lemma_acceptor(
    spelled: Sequence[Sequence[tuple[Lemma, int]]],
    silence: Lemma | None,
    *,
    repeat_silence: bool,
    normalize: bool,
) -> LemmaAcceptor:
    """The lemma sequences of a transcript.

    Args:
        spelled: for each position of the transcript the lemmas that begin there, and the position behind each.
        silence: the lemma of silence, which may stand anywhere; None: nowhere.
        repeat_silence: whether silence may follow silence: a loop instead of a state of its own behind it.
        normalize: whether each state's ways on (its arcs, and ending) have probabilities that sum to 1. They are
            equally likely, so each costs the logarithm of their number.
    """
    acceptor = LemmaAcceptor()
    # Behind silence, which may not be repeated, stands a state that has the arcs of words alone.
    own_state = silence is not None and not repeat_silence
    stride = 2 if own_state else 1
    for position in range(len(spelled) + 1):
        words = [(lemma, end * stride) for lemma, end in spelled[position]] if position < len(spelled) else []
        here = position * stride
        ends = position == len(spelled)
        pause = [] if silence is None else [(silence, here + 1 if own_state else here)]
        for arcs in (pause + words, words)[:stride]:
            cost = math.log(len(arcs) + ends) if normalize and arcs else 0.0
            if ends:
                acceptor.finals[len(acceptor.arcs)] = cost
            acceptor.arcs.append([(lemma, end, cost) for lemma, end in arcs])
    return acceptor
