"""Forced alignment of whole sets: where words and phones lie, by the best path through their automata."""

from __future__ import annotations

from collections.abc import Sequence

from seqtrain.align import AlignedUtterance
from seqtrain.align.words import align_words
from seqtrain.data import Utterance
from seqtrain.lexicon import AutomatonBuilder
from seqtrain.training.acoustics import ScoredSet
from seqtrain.training.criterion import AutomatonSource

__all__ = ["force_align"]


def force_align(
    scored: ScoredSet,
    utterances: Sequence[Utterance],
    *,
    builder: AutomatonBuilder,
    source: AutomatonSource | None,
    frame_shift: float,
    frame_offset: float = 0.0,
) -> dict[str, AlignedUtterance]:
    """Words and phones in time, by utterance.

    Args:
        scored: scores of the frames.
        utterances: whose they are, in any order; there may be more.
        builder: says what the states of the automata stand for; `source`, where one is given, builds the same ones.
        source: an aligner service; None: the builder's own automata.
        frame_shift: seconds from one frame of the scores to the next.
        frame_offset: seconds at which the first one begins.

    Raises:
        InfeasibleError: an utterance has fewer frames than its automaton needs.
        and what the source raises.
    """
    by_id = {utterance.id: utterance for utterance in utterances}
    found: dict[str, AlignedUtterance] = {}
    for batch in scored.batches():
        aligned = align_words(
            batch.scores,
            batch.lengths,
            [by_id[tag] for tag in batch.tags],
            builder,
            frame_shift=frame_shift,
            frame_offset=frame_offset,
            automata=None if source is None else source.automata(batch.tags),
        )
        found.update(zip(batch.tags, aligned, strict=True))
    return found
