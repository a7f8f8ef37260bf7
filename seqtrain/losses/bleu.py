"""BLEU of single sentences: how many of a hypothesis' n-grams the reference has.

With m_n of the hypothesis' c_n n-grams matched, each at most as often as the reference has it, h and r the lengths,
    BLEU = min(1, exp(1 - r / h)) · exp(mean over n of log p_n),   p_n = m_n / c_n,
the mean over the orders n the hypothesis is long enough for (effective order). An order without a match, while others
have one, gets p_n = 1 / (2^k c_n), k counting such orders from the lowest (exponential smoothing). So does sacrebleu
(M. Post: A Call for Clarity in Reporting BLEU Scores, WMT 2018), in percent. K. Papineni, S. Roukos, T. Ward, W. Zhu:
BLEU: a Method for Automatic Evaluation of Machine Translation, ACL 2002; B. Chen, C. Cherry: A Systematic Comparison of
Smoothing Techniques for Sentence-Level BLEU, WMT 2014 (method 3).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch

from seqtrain.errors import ArgumentError
from seqtrain.losses.label_sequences import check_sequences
from seqtrain.losses.reduction import check_reduction, reduce

__all__ = ["BleuStatistics", "SentenceBleu", "bleu_statistics", "sentence_bleu"]

_REDUCTIONS = ("none", "sum", "batch")


class BleuStatistics(NamedTuple):
    """What BLEU is computed from.

    Attributes:
        matches: m_n for n = 1 … order: n-grams of the hypothesis that the reference has.
        totals: c_n for n = 1 … order: n-grams of the hypothesis.
        hypothesis_length: labels of the hypothesis.
        reference_length: labels of the reference.
    """

    matches: tuple[int, ...]
    totals: tuple[int, ...]
    hypothesis_length: int
    reference_length: int


def bleu_statistics(hypothesis: Sequence[int], reference: Sequence[int], *, order: int = 4) -> BleuStatistics:
    """Counts n-grams of labels.

    Raises:
        ArgumentError: `order` is below 1.
    """
    _check_order(order)
    orders = range(1, order + 1)
    return BleuStatistics(
        # Of counters, & is the smaller count of each.
        matches=tuple((_ngrams(hypothesis, n) & _ngrams(reference, n)).total() for n in orders),
        totals=tuple(max(len(hypothesis) - n + 1, 0) for n in orders),
        hypothesis_length=len(hypothesis),
        reference_length=len(reference),
    )


def _ngrams(labels: Sequence[int], n: int) -> Counter[tuple[int, ...]]:
    return Counter(zip(*(labels[first:] for first in range(n)), strict=False))


def _check_order(order: int) -> None:
    if order < 1:
        raise ArgumentError(f"order must be at least 1, got {order}", argument="order")


def _bleu(statistics: BleuStatistics) -> float:
    if not any(statistics.matches):
        return 0.0
    log_precisions = []
    smoothing = 1.0
    for matches, total in zip(statistics.matches, statistics.totals, strict=True):
        if total == 0:
            break
        if matches == 0:
            smoothing *= 2.0
        log_precisions.append(math.log(matches / total if matches else 1.0 / (smoothing * total)))
    log_brevity = min(0.0, 1.0 - statistics.reference_length / statistics.hypothesis_length)
    return math.exp(log_brevity + sum(log_precisions) / len(log_precisions))


def sentence_bleu(
    hypotheses: torch.Tensor,
    references: torch.Tensor,
    hypothesis_lengths: torch.Tensor,
    reference_lengths: torch.Tensor,
    *,
    order: int = 4,
    reduction: str = "none",
) -> torch.Tensor:
    """BLEU of each hypothesis, in 0 … 1, larger is better. It has no gradient.

    Args:
        hypotheses: (B, U) int labels, padded with anything; an empty one has BLEU 0.
        references: (B, R) int labels, padded with anything; none may be empty.
        hypothesis_lengths, reference_lengths: (B,) int.
        order: the longest n-grams that count.
        reduction: "none", "sum" or "batch".

    Returns:
        (B,) float32, or their reduction, on the device of the hypotheses.

    Raises:
        ShapeError, DtypeError, DeviceError. ArgumentError: an empty reference, or `order` below 1.
    """
    check_reduction(reduction, allowed=_REDUCTIONS)
    _check_order(order)
    hypothesis_lengths, reference_lengths = check_sequences(
        hypotheses, references, hypothesis_lengths, reference_lengths
    )
    empty = reference_lengths == 0
    if bool(empty.any()):
        raise ArgumentError(
            f"the reference of utterance {int(empty.nonzero()[0])} is empty: BLEU isn't defined for it",
            argument="references",
        )
    scores = [
        _bleu(bleu_statistics(hypothesis[:h], reference[:r], order=order))
        for hypothesis, reference, h, r in zip(
            hypotheses.tolist(), references.tolist(), hypothesis_lengths.tolist(), reference_lengths.tolist(),
            strict=True,
        )
    ]  # fmt: skip
    values = torch.tensor(scores, dtype=torch.float32, device=hypotheses.device)
    return reduce(values, reduction, lengths=hypothesis_lengths)


class SentenceBleu(torch.nn.Module):
    """`sentence_bleu` with its options.

    Called with (hypotheses (B, U), references (B, R), hypothesis_lengths (B,), reference_lengths (B,)).
    """

    def __init__(self, *, order: int = 4, reduction: str = "batch") -> None:
        super().__init__()
        check_reduction(reduction, allowed=_REDUCTIONS)
        _check_order(order)
        self.order = order
        self.reduction = reduction

    def forward(
        self,
        hypotheses: torch.Tensor,
        references: torch.Tensor,
        hypothesis_lengths: torch.Tensor,
        reference_lengths: torch.Tensor,
    ) -> torch.Tensor:
        return sentence_bleu(
            hypotheses, references, hypothesis_lengths, reference_lengths, order=self.order,
            reduction=self.reduction,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"order={self.order}, reduction={self.reduction!r}"
