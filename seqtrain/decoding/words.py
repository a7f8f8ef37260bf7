"""Words out of scores and a word graph, with a beam: by way of a lattice, so with times and confidences."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from seqtrain import lattice as lt
from seqtrain.decoding.splice import WordLoop
from seqtrain.errors import ArgumentError
from seqtrain.scores import Packed, Scores

__all__ = ["DecodedWord", "DecodedWords", "decode_words", "word_lattice"]


@dataclass(frozen=True)
class DecodedWord:
    """A word, from frame `begin` to the next word's first frame (silence behind it included), and its confidence."""

    word: str
    begin: int
    end: int
    confidence: float


@dataclass(frozen=True)
class DecodedWords:
    """The best words of an utterance; `truncated` counts the states that the beam dropped, 0 if none: exact.

    `score` is the log score of the best path, -inf where there is none (then there are no words either).
    """

    words: tuple[DecodedWord, ...]
    score: float
    truncated: int

    def __str__(self) -> str:
        return " ".join(word.word for word in self.words)


def word_lattice(
    scores: Scores,
    lengths: torch.Tensor,
    graph: WordLoop,
    *,
    acoustic_scale: float = 1.0,
    beam: float = math.inf,
    max_active: int | None = None,
    on_infeasible: str = "raise",
) -> lt.Lattice:
    """The lattice of a word graph; its auxiliary labels are indices into `graph.words`, at each word's first frame.

    Args:
        acoustic_scale: factor on the scores, above 0; beam and weights are in units after scaling.

    The others and errors as `lattice.intersect`.
    """
    if not acoustic_scale > 0:
        raise ArgumentError(
            f"acoustic_scale must be positive, got {acoustic_scale}", argument="acoustic_scale"
        )
    if acoustic_scale != 1.0:
        if isinstance(scores, Packed):
            scores = Packed(scores.values * acoustic_scale, scores.offsets)
        else:
            scores = scores * acoustic_scale
    aux = torch.where(graph.starts_word, graph.word_of_arc, -1)
    return lt.intersect(
        scores, lengths, graph.fsa, beam=beam, max_active=max_active, aux=aux, on_infeasible=on_infeasible
    )


def decode_words(
    scores: Scores,
    lengths: torch.Tensor,
    graph: WordLoop,
    *,
    acoustic_scale: float = 1.0,
    beam: float = math.inf,
    max_active: int | None = None,
    on_infeasible: str = "raise",
) -> list[DecodedWords]:
    """The words of the best path of each utterance that the beam left, with times and confidences.

    Arguments and errors as in `word_lattice`. With `beam=math.inf` the words are those of `graph.decode`.
    """
    with torch.no_grad():
        lattice = word_lattice(
            scores, lengths, graph, acoustic_scale=acoustic_scale, beam=beam, max_active=max_active,
            on_infeasible=on_infeasible,
        )  # fmt: skip
        best = lt.best_path(lattice)
        units = lt.confidence(lattice, level="word", paths=best)
    score = torch.full((len(lattice),), -math.inf, dtype=torch.float64)
    score[best.utterance] = best.scores().to(torch.float64)
    return [
        DecodedWords(
            tuple(DecodedWord(graph.words[u.label], u.begin, u.end, u.confidence) for u in own),
            total,
            dropped,
        )
        for own, total, dropped in zip(units, score.tolist(), lattice.truncated.tolist(), strict=True)
    ]
