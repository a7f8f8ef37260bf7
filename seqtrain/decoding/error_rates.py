"""Word and phone error rates: counts of substitutions, insertions and deletions, and their totals.

The alignment is kaldialign's Levenshtein alignment (unit costs), the one behind Kaldi's `compute-wer`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from seqtrain.errors import ArgumentError, MissingDependencyError

__all__ = ["EditCounts", "ErrorRate", "count_edits", "error_rate"]

Symbol = TypeVar("Symbol", bound=Hashable)


@dataclass(frozen=True)
class EditCounts:
    """Edits that turn a reference into a hypothesis; `reference` is the count of the reference's symbols."""

    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0
    reference: int = 0

    @property
    def errors(self) -> int:
        """substitutions + insertions + deletions."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """errors / reference as a fraction; for an empty reference 0.0 without errors, else inf."""
        if self.reference == 0:
            return 0.0 if self.errors == 0 else math.inf
        return self.errors / self.reference

    def __add__(self, other: EditCounts) -> EditCounts:
        return EditCounts(
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.reference + other.reference,
        )


@dataclass(frozen=True)
class ErrorRate:
    """An error rate over a set of utterances.

    `total` holds the summed counts, `utterances` the counts of each one, in the order given. Its `str()` reads
    ``9.64 % (149 of 1545: 92 sub, 23 ins, 34 del)``.
    """

    total: EditCounts
    utterances: tuple[EditCounts, ...] = field(repr=False)

    @property
    def rate(self) -> float:
        """The summed errors over the summed reference length, as a fraction."""
        return self.total.rate

    @property
    def percent(self) -> float:
        """`rate` in percent."""
        return 100.0 * self.rate

    def confidence_interval(
        self, *, level: float = 0.95, samples: int = 1000, seed: int = 0
    ) -> tuple[float, float]:
        """Bootstrap interval of `rate` (fractions), resampling utterances: Bisani & Ney, ICASSP 2004.

        Deterministic for a given `seed`. It covers the choice of test utterances, not the noise of training.

        Raises:
            ArgumentError: `level` outside (0, 1), `samples` < 1, or no symbol in any reference.
        """
        if not 0.0 < level < 1.0:
            raise ArgumentError(f"level must lie between 0 and 1, got {level}", argument="level")
        if samples < 1:
            raise ArgumentError(f"samples must be at least 1, got {samples}", argument="samples")
        if self.total.reference == 0:
            raise ArgumentError("no reference symbols: there is no rate to resample", argument="references")
        errors = np.array([u.errors for u in self.utterances], dtype=np.float64)
        lengths = np.array([u.reference for u in self.utterances], dtype=np.float64)
        count = len(errors)
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), size=samples)
        drawn_lengths = drawn @ lengths
        # A draw of nothing but empty references has no rate; it is left out.
        kept = drawn_lengths > 0
        rates = (drawn[kept] @ errors) / drawn_lengths[kept]
        low, high = np.quantile(rates, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
        return float(low), float(high)

    def __str__(self) -> str:
        t = self.total
        return (
            f"{self.percent:.2f} % ({t.errors} of {t.reference}: "
            f"{t.substitutions} sub, {t.insertions} ins, {t.deletions} del)"
        )


def count_edits(reference: Sequence[Symbol], hypothesis: Sequence[Symbol]) -> EditCounts:
    """Fewest edits from `reference` to `hypothesis`, each a sequence of words, phones or label numbers.

    Raises:
        ArgumentError: a plain `str` was given, which would be compared character by character.
        MissingDependencyError: kaldialign is not installed.
    """
    for name, sequence in (("reference", reference), ("hypothesis", hypothesis)):
        if isinstance(sequence, str):
            raise ArgumentError(
                f"{name} is a string; pass a sequence of symbols: "
                "text.split() for words, list(text) for characters",
                argument=name,
            )
    try:
        import kaldialign
    except ImportError as error:
        raise MissingDependencyError("kaldialign", extra="recipes") from error
    counts = kaldialign.edit_distance(reference, hypothesis)
    return EditCounts(int(counts["sub"]), int(counts["ins"]), int(counts["del"]), len(reference))


def error_rate(references: Iterable[Sequence[Symbol]], hypotheses: Iterable[Sequence[Symbol]]) -> ErrorRate:
    """Error rate of `hypotheses` against `references`, paired by position.

    Raises:
        ArgumentError: the two have different lengths, or hold plain strings.
        MissingDependencyError: kaldialign is not installed.
    """
    references, hypotheses = list(references), list(hypotheses)
    if len(references) != len(hypotheses):
        raise ArgumentError(
            f"{len(references)} references but {len(hypotheses)} hypotheses: they are paired by position",
            argument="hypotheses",
        )
    counts = tuple(count_edits(r, h) for r, h in zip(references, hypotheses, strict=True))
    return ErrorRate(sum(counts, EditCounts()), counts)
