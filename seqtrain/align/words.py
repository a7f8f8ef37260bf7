"""Forced alignment: the words and phones of a known text in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from seqtrain.align.segments import AlignedUtterance, Segment, segments
from seqtrain.errors import ShapeError
from seqtrain.fsa import FsaBatch, WordStates
from seqtrain.functional import best_path
from seqtrain.lexicon import AutomatonBuilder

__all__ = ["Transcribed", "Transcript", "align_words", "read_states"]


class Transcribed(Protocol):
    """An utterance whose words are known: `seqtrain.data.Utterance`, `Transcript`."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def text(self) -> str:
        """Its words, separated by white space."""

    @property
    def duration(self) -> float:
        """Its length in seconds."""


@dataclass(frozen=True)
class Transcript:
    """What is said in an utterance, where there is no recording at hand: name, words, length in seconds."""

    id: str
    text: str
    duration: float


def align_words(
    scores: Tensor,
    lengths: Tensor,
    transcripts: Sequence[Transcribed],
    builder: AutomatonBuilder,
    *,
    frame_shift: float,
    frame_offset: float = 0.0,
    automata: FsaBatch | None = None,
) -> list[AlignedUtterance]:
    """The best path of each utterance through the automaton of its text, as words and phones.

    Args:
        scores: (B, T, V) per-frame label scores (natural log, larger is better) in the columns of `builder.inventory`.
        lengths: (B,) frames of each utterance.
        transcripts: B of them.
        builder: lexicon and topology; CTC and HMM alike.
        frame_shift: seconds between two frames of the scores.
        frame_offset: seconds at which frame 0 begins, see `segments`.
        automata: the automata of the texts, from a service that builds the same ones; None: `builder` builds them.

    Returns:
        For each utterance its words and phones; the score of a segment is the mean of the path's label scores over
        its frames, that of the utterance the score of the whole path.

    Raises:
        OutOfVocabularyError: the lexicon lacks a word. InfeasibleError: an utterance is too short for its text.
        ShapeError: not as many transcripts as scores.
    """
    if len(transcripts) != scores.shape[0]:
        raise ShapeError(
            f"{len(transcripts)} transcripts for the scores of {scores.shape[0]} utterances",
            argument="transcripts",
        )
    texts, tags = [t.text for t in transcripts], [t.id for t in transcripts]
    if automata is None:
        automata = builder.build_batch(texts, tags=tags)
    path = best_path(scores, lengths, automata)
    states = builder.states_of(texts, tags=tags)
    taken = scores.detach().gather(2, path.labels.clamp(min=0).to(scores.device)[:, :, None])[:, :, 0]
    aligned = []
    for b, transcript in enumerate(transcripts):
        frames = int(lengths[b])
        words, phones = read_states(
            path.states[b, :frames],
            states,
            b,
            transcript.text.split(),
            builder,
            frame_shift=frame_shift,
            frame_offset=frame_offset,
            frame_scores=taken[b, :frames],
        )
        aligned.append(
            AlignedUtterance(transcript.id, transcript.duration, words, phones, float(path.score[b]))
        )
    return aligned


def read_states(
    path: Tensor,
    states: WordStates,
    index: int,
    words: Sequence[str],
    builder: AutomatonBuilder,
    *,
    frame_shift: float,
    frame_offset: float = 0.0,
    frame_scores: Tensor | None = None,
) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """Words and phones along a path through automaton `index` of those that `states` describes.

    Args:
        path: (T,) the state entered at each frame, as in `Alignment.states`.
        states: `builder.states_of` the texts.
        index: which of the texts.
        words: the words of that text.
        builder: names the phones.
        frame_shift, frame_offset, frame_scores: see `segments`.
    """
    entered = path.detach().cpu().long() + int(states.offsets[index])
    word, variant, phone = states.word[entered], states.variant[entered], states.phone[entered]
    # A phone is known by its word and its position there; along the path these only grow.
    position = torch.where(phone >= 0, word * (int(phone.max()) + 1 if len(phone) else 1) + phone, -1)
    shown = position >= 0
    numbers, unit = torch.unique(position[shown], return_inverse=True)
    units = torch.full_like(position, -1)
    units[shown] = unit
    names = [""] * len(numbers)
    for u, w, v, p in zip(*(x[shown].tolist() for x in (units, word, variant, phone)), strict=True):
        names[u] = builder.lexicon[words[w]][v].phonemes[p]
    word_segments, phone_segments = (
        segments(unit, symbols, frame_shift=frame_shift, frame_offset=frame_offset, frame_scores=frame_scores)
        for unit, symbols in ((word, words), (units, names))
    )
    return word_segments, phone_segments
