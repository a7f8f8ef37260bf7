"""How well the word boundaries of two aligners agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from seqtrain.align.segments import Segment
from seqtrain.errors import ArgumentError

__all__ = ["BoundaryAgreement", "compare_boundaries"]


@dataclass(frozen=True)
class BoundaryAgreement:
    """Agreement over `words` words.

    `starts_within` and `ends_within` are the fractions of words whose start and end differ by at most `tolerance`
    seconds; `start_offset` and `end_offset` the medians of hypothesis minus reference in seconds (negative: early).
    """

    words: int
    starts_within: float
    ends_within: float
    start_offset: float
    end_offset: float
    tolerance: float

    def __str__(self) -> str:
        return (
            f"{self.words} words: starts {100 * self.starts_within:.1f} %, "
            f"ends {100 * self.ends_within:.1f} % within {1000 * self.tolerance:.0f} ms "
            f"(median offsets {1000 * self.start_offset:+.0f} and {1000 * self.end_offset:+.0f} ms)"
        )


def compare_boundaries(
    references: Iterable[Sequence[Segment]],
    hypotheses: Iterable[Sequence[Segment]],
    *,
    tolerance: float = 0.05,
) -> BoundaryAgreement:
    """Compares the words of each utterance, in order; both must hold the same words.

    Times are compared with half a microsecond to spare, so that a difference of exactly `tolerance` counts as within.

    Raises:
        ArgumentError: different numbers of utterances, different words in one of them, or no word at all.
    """
    references, hypotheses = list(references), list(hypotheses)
    if len(references) != len(hypotheses):
        raise ArgumentError(
            f"{len(references)} references but {len(hypotheses)} hypotheses: they are paired by position",
            argument="hypotheses",
        )
    offsets = []
    for position, (reference, hypothesis) in enumerate(zip(references, hypotheses, strict=True)):
        words, found = [s.symbol for s in reference], [s.symbol for s in hypothesis]
        if words != found:
            raise ArgumentError(
                f"utterance {position}: the reference has the words {words}, the hypothesis {found}",
                argument="hypotheses",
            )
        offsets += [
            (h.start_s - r.start_s, h.end_s - r.end_s) for r, h in zip(reference, hypothesis, strict=True)
        ]
    if not offsets:
        raise ArgumentError("there is no word to compare", argument="references")
    difference = np.array(offsets)
    within = (np.abs(difference) <= tolerance + 5e-7).mean(axis=0)
    median = np.median(difference, axis=0)
    return BoundaryAgreement(
        len(offsets), float(within[0]), float(within[1]), float(median[0]), float(median[1]), tolerance
    )
