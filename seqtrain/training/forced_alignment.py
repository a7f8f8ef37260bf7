"""Forced alignment of whole sets: where words and phones lie, by the best path through their automata."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from seqtrain.align import AlignedUtterance, segments
from seqtrain.fsa import FsaBatch
from seqtrain.functional import best_path
from seqtrain.lexicon import AutomatonBuilder
from seqtrain.training.acoustics import ScoredSet
from seqtrain.training.criteria import AutomatonSource

__all__ = ["force_align"]


def force_align(
    scored: ScoredSet,
    *,
    builder: AutomatonBuilder,
    source: AutomatonSource | None,
    texts: Mapping[str, str],
    durations: Mapping[str, float],
    frame_shift: float,
) -> dict[str, AlignedUtterance]:
    """Words and phones in time, by utterance.

    Args:
        scored: scores of the frames.
        builder: says what the states of the automata stand for; `source`, where one is given, builds the same
            ones.
        source: an aligner service; None: the builder's own automata.
        texts: the transcripts, by id.
        durations: seconds, by id.
        frame_shift: seconds from one frame of the scores to the next.

    Raises:
        InfeasibleError: an utterance has fewer frames than its automaton needs.
        and what the source raises.
    """
    found: dict[str, AlignedUtterance] = {}
    for batch in scored.batches():
        spoken = [texts[tag] for tag in batch.tags]
        automata: FsaBatch = (
            source.automata(batch.tags)
            if source is not None
            else builder.build_batch(spoken, tags=batch.tags)
        )
        path = best_path(batch.scores, batch.lengths, automata)
        meaning = builder.states_of(spoken, tags=batch.tags)
        for row, tag in enumerate(batch.tags):
            length = int(batch.lengths[row])
            states = meaning.offsets[row] + path.states[row, :length]
            word, phone = meaning.word[states], meaning.phone[states]
            variant = meaning.variant[states]
            words = spoken[row].split()
            # Phones are numbered through the utterance: how many stand before each word, then the place in
            # it.
            chosen = [0] * len(words)
            for position, number in zip(word.tolist(), variant.tolist(), strict=True):
                if position >= 0:
                    chosen[position] = number
            pronunciations = [
                builder.lexicon[name][number].phonemes for name, number in zip(words, chosen, strict=True)
            ]
            before = torch.tensor([0, *(len(p) for p in pronunciations)]).cumsum(0)
            numbered = torch.where(word >= 0, before[word.clamp(min=0)] + phone, -1)
            labels = path.labels[row, :length]
            scores = batch.scores[row, :length].gather(1, labels[:, None]).squeeze(1)
            found[tag] = AlignedUtterance(
                id=tag,
                duration_s=durations[tag],
                words=segments(word, words, frame_shift=frame_shift, frame_scores=scores),
                phones=segments(
                    numbered,
                    [phone for pronunciation in pronunciations for phone in pronunciation],
                    frame_shift=frame_shift,
                    frame_scores=scores,
                ),
                score=float(path.score[row]),
            )
    return found
