"""Hidden Markov models of word sequences, with pronunciation variants and optional silence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from seqtrain.errors import ArgumentError, LabelError
from seqtrain.fsa.batch import FsaBatch
from seqtrain.fsa.topology._assemble import offsets_of
from seqtrain.fsa.topology.chains import Chains, Inventory, join_chains, shortest_visit
from seqtrain.fsa.topology.transitions import Silence, Transitions

__all__ = ["Word", "WordStates", "word_hmm", "word_hmm_states"]

Word: TypeAlias = Sequence[tuple[float, Sequence[int]]]
"""The pronunciation variants of a word: (log weight, phones) each."""

_PHONES, _SILENCE, _START = range(3)


@dataclass(frozen=True)
class WordStates:
    """What each state of the automata of `word_hmm` stands for; rows `offsets[g]` … `offsets[g + 1]` are
    automaton g's.

    Attributes:
        word: (ΣS,) int64 position of the word in its utterance, -1 for silence and start.
        variant: (ΣS,) int64 which variant of the word, -1 for silence and start.
        phone: (ΣS,) int64 position of the phone in the pronunciation, -1 for silence and start.
        state: (ΣS,) int64 state of the phone or silence, counted from 0; -1 for the start.
        offsets: (G + 1,) int64.
    """

    word: torch.Tensor
    variant: torch.Tensor
    phone: torch.Tensor
    state: torch.Tensor
    offsets: torch.Tensor


class _Layout:
    """The chains of a batch of utterances, gathered word by word."""

    def __init__(self, inventory: Inventory, silence: Silence | None) -> None:
        self.inventory = inventory
        self.silence = silence
        self.phones: list[int] = []
        self.phone_counts: list[int] = []
        self.kinds: list[int] = []
        self.utterances: list[int] = []
        self.words: list[int] = []
        self.variants: list[int] = []
        self.joins: list[tuple[int, int]] = []
        self.join_weights: list[float] = []
        self.finals: list[int] = []
        self.final_weights: list[float] = []

    def _chain(self, kind: int, utterance: int, word: int, variant: int, phones: Sequence[int]) -> int:
        self.kinds.append(kind)
        self.utterances.append(utterance)
        self.words.append(word)
        self.variants.append(variant)
        self.phones.extend(phones)
        self.phone_counts.append(len(phones))
        return len(self.kinds) - 1

    def _join(self, sources: list[tuple[int, float]], chain: int, weight: float) -> None:
        for source, so_far in sources:
            self.joins.append((source, chain))
            self.join_weights.append(so_far + weight)

    def _silence_choice(
        self, utterance: int, sources: list[tuple[int, float]], *, edge: bool
    ) -> list[tuple[int, float]]:
        """Sources with the choice for or against silence behind them."""
        if self.silence is None:
            return sources
        present, absent = self.silence.choice(edge=edge)
        chain = self._chain(_SILENCE, utterance, -1, -1, ())
        self._join(sources, chain, present)
        return [(chain, 0.0), *((source, so_far + absent) for source, so_far in sources)]

    def add(self, utterance: int, words: Sequence[Word]) -> None:
        sources = [(self._chain(_START, utterance, -1, -1, ()), 0.0)]
        for position, variants in enumerate(words):
            if not variants:
                raise ArgumentError(
                    f"utterance {utterance}, word {position} has no pronunciation", argument="utterances"
                )
            sources = self._silence_choice(utterance, sources, edge=position == 0)
            ends = []
            for variant, (weight, phones) in enumerate(variants):
                if not phones:
                    raise ArgumentError(
                        f"utterance {utterance}, word {position}, variant {variant} has no phones",
                        argument="utterances",
                    )
                if not weight < math.inf:
                    raise ArgumentError(
                        f"utterance {utterance}, word {position}, variant {variant} has the weight {weight}: "
                        "a log weight must be finite or -inf",
                        argument="utterances",
                    )
                chain = self._chain(_PHONES, utterance, position, variant, phones)
                self._join(sources, chain, weight)
                ends.append((chain, 0.0))
            sources = ends
        for source, so_far in sorted(self._silence_choice(utterance, sources, edge=True)):
            self.finals.append(source)
            self.final_weights.append(so_far)

    def _expanded(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        phones = np.array(self.phones, dtype=np.int64)
        try:
            return self.inventory.expand(phones)
        except LabelError as error:
            chain = int(np.searchsorted(np.cumsum(self.phone_counts), error.position, side="right"))
            raise LabelError(
                f"utterance {self.utterances[chain]}, word {self.words[chain]}, "
                f"variant {self.variants[chain]}: {error}",
                argument="utterances",
                utterance=self.utterances[chain],
                position=self.words[chain],
                label=error.label,
                num_labels=error.num_labels,
            ) from error

    def chains(self) -> tuple[Chains, NDArray[np.int64]]:
        """The chains, and the number of states of each phone."""
        phone_columns, sizes = self._expanded()
        kinds = np.array(self.kinds, dtype=np.int64)
        chain_of_phone = np.repeat(np.arange(kinds.size), self.phone_counts)
        lengths = np.bincount(chain_of_phone, weights=sizes, minlength=kinds.size).astype(np.int64)
        silence = self.silence.columns if self.silence is not None else ()
        lengths[kinds == _SILENCE] = len(silence)
        lengths[kinds == _START] = 1
        kind_of_state = np.repeat(kinds, lengths)
        columns = np.zeros(kind_of_state.size, dtype=np.int32)
        columns[kind_of_state == _PHONES] = phone_columns
        columns[kind_of_state == _SILENCE] = np.tile(
            np.array(silence, dtype=np.int32), np.count_nonzero(kinds == _SILENCE)
        )
        chains = Chains(
            columns=columns,
            lengths=lengths,
            kinds=kinds,
            utterances=np.array(self.utterances, dtype=np.int64),
            joins=np.array(self.joins, dtype=np.int64).reshape(-1, 2),
            join_weights=np.array(self.join_weights, dtype=np.float64),
            finals=np.array(self.finals, dtype=np.int64),
            final_weights=np.array(self.final_weights, dtype=np.float64),
        )
        return chains, sizes

    def min_length(self, chains: Chains, transitions: Transitions, *, batch: int) -> NDArray[np.int64]:
        """(B,) frames of the shortest variant of each word, summed; silence is left out."""
        phones = np.flatnonzero(chains.kinds == _PHONES)
        if not phones.size:
            return np.zeros(batch, dtype=np.int64)
        first_variants = np.flatnonzero(np.array(self.variants)[phones] == 0)
        visits = shortest_visit(chains.lengths[phones], transitions)
        shortest = np.minimum.reduceat(visits, first_variants)
        utterances = chains.utterances[phones[first_variants]]
        return np.bincount(utterances, weights=shortest, minlength=batch).astype(np.int64)


def _lay_out(
    utterances: Sequence[Sequence[Word]],
    states_per_phone: int,
    columns: Sequence[Sequence[int]] | None,
    silence: Silence | None,
) -> _Layout:
    inventory = Inventory(states_per_label=states_per_phone, columns=columns, name="states_per_phone")
    layout = _Layout(inventory, silence)
    for index, words in enumerate(utterances):
        layout.add(index, words)
    return layout


def word_hmm(
    utterances: Sequence[Sequence[Word]],
    *,
    states_per_phone: int = 1,
    columns: Sequence[Sequence[int]] | None = None,
    transitions: Transitions = Transitions(),  # noqa: B008  # frozen, so that one shared default is safe
    silence: Silence | None = None,
) -> FsaBatch:
    """Automata of the state sequences of word sequences: any variant of each word, silence where it is
    allowed.

    A path pays the log weight of each variant it takes; the choice for or against silence before each word
    and at the end (see `Silence`); and, in each state, the weights described at `Transitions`. With variant,
    silence and transition weights that are logs of normalised probabilities, and no skips, the weights of all
    paths of all lengths sum to one.

    State 0 is the start. Then, word after word: the states of the silence before it, those of its variants in
    order; at the end those of the last silence. Arcs in the order of their source, then of their destination;
    an arc carries the column of its destination. Final are the last states of the last word's variants and of
    the last silence (without
    words: the start, and of the only silence).

    Args:
        utterances: for each utterance its words; a word is a sequence of variants (log weight, phones).
        states_per_phone: n; state k of phone p has the column p * n + k.
        columns: instead, for each phone the columns of its states (any number of them; columns may be
            shared).
        transitions: loop, forward and skip weights of the states of phones.
        silence: the states of silence and what it costs; None: no silence.

    Raises:
        ArgumentError: a word without pronunciation, a pronunciation without phones, a weight that is NaN or
            +inf.
        LabelError: a phone that is negative or that `columns` doesn't describe; `position` is the word's.
    """
    layout = _lay_out(utterances, states_per_phone, columns, silence)
    chains, _ = layout.chains()
    kinds = (
        transitions,
        silence.transitions if silence is not None else transitions,
        Transitions(loop=-math.inf),
    )
    shortest = layout.min_length(chains, transitions, batch=len(utterances))
    return join_chains(chains, kinds, batch=len(utterances), min_length=shortest)


def word_hmm_states(
    utterances: Sequence[Sequence[Word]],
    *,
    states_per_phone: int = 1,
    columns: Sequence[Sequence[int]] | None = None,
    silence: Silence | None = None,
) -> WordStates:
    """What the states of `word_hmm`, called with the same arguments, stand for: word, variant, phone, state
    of the phone.

    Raises:
        ArgumentError, LabelError: as `word_hmm`.
    """
    layout = _lay_out(utterances, states_per_phone, columns, silence)
    chains, sizes = layout.chains()
    is_phone = np.repeat(chains.kinds == _PHONES, chains.lengths)
    is_start = np.repeat(chains.kinds == _START, chains.lengths)

    counts = np.array(layout.phone_counts, dtype=np.int64)
    phone_in_chain = np.arange(sizes.size) - np.repeat(np.cumsum(counts) - counts, counts)
    phone = np.full(is_phone.size, -1, dtype=np.int64)
    phone[is_phone] = np.repeat(phone_in_chain, sizes)
    first = offsets_of(chains.lengths)[:-1]
    state = np.arange(is_phone.size) - np.repeat(first, chains.lengths)
    state[is_phone] = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    state[is_start] = -1
    num_states = np.bincount(chains.utterances, weights=chains.lengths, minlength=len(utterances))
    return WordStates(
        word=torch.from_numpy(np.repeat(np.array(layout.words, dtype=np.int64), chains.lengths)),
        variant=torch.from_numpy(np.repeat(np.array(layout.variants, dtype=np.int64), chains.lengths)),
        phone=torch.from_numpy(phone),
        state=torch.from_numpy(state),
        offsets=torch.from_numpy(offsets_of(num_states.astype(np.int64))),
    )
