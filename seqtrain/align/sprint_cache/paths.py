"""Our own best paths as alignments of a cache, and alignments of a cache as scores for our own best paths.

The second is how a cache gets its words back: where the automaton of what was said is scored with the alignment, its
best path is the alignment itself, and says which words and phones its frames belong to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seqtrain.align.sprint_cache.alignment import SprintAlignment, read_alignment
from seqtrain.align.sprint_cache.allophones import Allophone, Allophones, AllophoneState
from seqtrain.align.sprint_cache.archive import Archive
from seqtrain.align.sprint_cache.labels import columns_of, from_frame_labels, soft_labels
from seqtrain.align.words import Transcribed
from seqtrain.errors import ArgumentError
from seqtrain.fsa import WordStates
from seqtrain.functional import best_path
from seqtrain.lexicon import AutomatonBuilder, CtcTopology, LabelInventory

__all__ = ["CachedScores", "align_for_cache"]


def align_for_cache(
    scores: Tensor,
    lengths: Tensor,
    transcripts: Sequence[Transcribed],
    builder: AutomatonBuilder,
    *,
    allophones: Allophones | None = None,
) -> list[SprintAlignment]:
    """The best path of each utterance through the automaton of its text.

    Args:
        scores, lengths, transcripts, builder: as of `align_words`, which finds the same paths.
        allophones: the list of a RASR model, whose allophone states the labels then are; None: the labels are
            emissions, the columns of the scores. A phone gets the neighbours it has in its word, and across the word's
            ends where the list has such allophones and no silence lies in between.

    Raises:
        ArgumentError: the list lacks an allophone; allophones in context with CTC, where they aren't defined.
        OutOfVocabularyError, InfeasibleError: as `align_words`.
    """
    texts, tags = [t.text for t in transcripts], [t.id for t in transcripts]
    path = best_path(scores, lengths, builder.build_batch(texts, tags=tags))
    columns, entered = path.labels.cpu(), path.states.cpu()
    frames = [int(length) for length in lengths]
    if allophones is None:
        return [from_frame_labels(columns[b, :count].numpy()) for b, count in enumerate(frames)]
    if allophones.has_context and isinstance(builder.topology, CtcTopology):
        raise ArgumentError(
            "the list has allophones in context, and with CTC any label may stand between two phones: "
            "give a list without context",
            argument="allophones",
        )
    states = builder.states_of(texts, tags=tags)
    aligned = []
    for b, (count, text) in enumerate(zip(frames, texts, strict=True)):
        found = _PathInContext(entered[b, :count] + states.offsets[b], states, text.split(), builder)
        labels = [
            allophones.label(found.state(frame, column, allophones))
            for frame, column in enumerate(columns[b, :count].tolist())
        ]
        aligned.append(from_frame_labels(np.array(labels, dtype=np.int64), kind="allophone-state"))
    return aligned


class _PathInContext:
    """The path through one utterance's automaton, frame by frame.

    Args:
        entered: (T,) the state entered at each frame, as a row of `states`.
        states: what they stand for.
        words: of the utterance.
        builder: names the phones.
    """

    def __init__(
        self, entered: Tensor, states: WordStates, words: Sequence[str], builder: AutomatonBuilder
    ) -> None:
        self._word: list[int] = states.word[entered].tolist()
        self._variant: list[int] = states.variant[entered].tolist()
        self._phone: list[int] = states.phone[entered].tolist()
        self._state: list[int] = states.state[entered].tolist()
        self._words = words
        self._builder = builder
        self._last = {word: frame for frame, word in enumerate(self._word)}
        self._first = {word: frame for frame, word in reversed([*enumerate(self._word)])}

    def state(self, frame: int, column: int, allophones: Allophones) -> AllophoneState:
        """The allophone state of a frame, whose label is `column`, in a model with these allophones."""
        if self._word[frame] < 0:
            # Silence or blank, which have one state: the label has the name of the phoneme.
            phone = self._builder.inventory.labels[column]
            return AllophoneState(Allophone(phone, initial=True, final=True), 0)
        phonemes, position = self._said(frame), self._phone[frame]
        phone = phonemes[position]
        initial, final = position == 0, position == len(phonemes) - 1
        allophone = Allophone(phone, initial=initial, final=final)
        if allophones.has_context and phone not in allophones.phones_without_context:
            left = self._said_before(frame, allophones) if initial else phonemes[position - 1]
            right = self._said_behind(frame, allophones) if final else phonemes[position + 1]
            left, right = (None if p in allophones.phones_without_context else p for p in (left, right))
            allophone = Allophone.of(phone, left, right, initial=initial, final=final)
        return AllophoneState(allophone, self._state[frame])

    def _said(self, frame: int) -> tuple[str, ...]:
        word = self._words[self._word[frame]]
        return self._builder.lexicon[word][self._variant[frame]].phonemes

    def _said_before(self, frame: int, allophones: Allophones) -> str | None:
        """The phone in front of this frame's word, where the model looks there and no silence lies between them."""
        before = self._first[self._word[frame]] - 1
        joined = allophones.crosses_words and before >= 0 and self._word[before] >= 0
        return self._said(before)[-1] if joined else None

    def _said_behind(self, frame: int, allophones: Allophones) -> str | None:
        behind = self._last[self._word[frame]] + 1
        joined = allophones.crosses_words and behind < len(self._word) and self._word[behind] >= 0
        return self._said(behind)[0] if joined else None


class CachedScores(Mapping[str, NDArray[np.float32]]):
    """The alignments of an archive as scores: segment → (T, V) float32, each read when it is asked for.

    They are the logs of `soft_labels`; asking for one raises as that does, as `read_alignment` and `columns_of`.

    Args:
        archive: stays the caller's to close.
        inventory: the columns.
        allophones: see `columns_of`.
    """

    def __init__(
        self, archive: Archive, inventory: LabelInventory, *, allophones: Allophones | None = None
    ) -> None:
        self._archive = archive
        self._inventory = inventory
        self._allophones = allophones

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if not self._archive.has_segment(name):
            raise KeyError(name)
        alignment = read_alignment(self._archive, name)
        soft = soft_labels(
            alignment,
            columns_of(alignment, self._inventory, self._allophones),
            num_labels=len(self._inventory),
            path=str(self._archive.origin(name)),
            name=name,
        )
        with np.errstate(divide="ignore"):  # the log of 0 is meant
            return np.log(soft)

    def __contains__(self, name: object) -> bool:
        return self._archive.has_segment(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._archive.segments)

    def __len__(self) -> int:
        return len(self._archive.segments)
