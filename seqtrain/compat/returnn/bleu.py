"""RETURNN's `bleu`."""

from __future__ import annotations

import math

import torch

from seqtrain.compat.returnn.base import Batch, SequenceLoss
from seqtrain.compat.returnn.edit_distance import hypotheses_of
from seqtrain.errors import ArgumentError
from seqtrain.losses.bleu import BleuStatistics, bleu_statistics

__all__ = ["Bleu"]

_ORDER = 4


def _bleu(statistics: BleuStatistics) -> float:
    smoothing, log_sum, any_precision = 1.0, 0.0, False
    for matches, total in zip(statistics.matches, statistics.totals, strict=True):
        if total == 0:
            continue
        if matches == 0:
            smoothing *= 2.0
        log_sum += math.log(matches / total if matches else 1.0 / (smoothing * total))
        any_precision = True
    if not any_precision:
        return 0.0
    ratio = statistics.hypothesis_length / statistics.reference_length
    return math.exp(log_sum / _ORDER + min(0.0, 1.0 - 1.0 / ratio))


class Bleu(SequenceLoss):
    """Minus the sentence BLEU of each sequence: an error without a value."""

    class_name = "bleu"
    needs_time = True
    native = "`sentence_bleu`"
    notes = (
        "An order without n-grams counts as precision 1 (short hypotheses profit), and a hypothesis without any "
        "match is smoothed; natively it is sacrebleu's sentence BLEU with effective order.",
        "The norm factor is 1 / the reference labels, which makes no mean of it: set custom_norm_factor.",
    )

    def value(self, batch: Batch) -> torch.Tensor | None:
        return None

    def error(self, batch: Batch) -> torch.Tensor:
        hypotheses, lengths = hypotheses_of(batch)
        references, reference_lengths = batch.sequence_targets()
        empty = (reference_lengths == 0).nonzero()
        if empty.numel():
            raise ArgumentError(
                f"targets[{int(empty[0])}] is empty: there is no BLEU against it", argument="targets"
            )
        return torch.tensor(
            [
                -_bleu(bleu_statistics(hypothesis[:u].tolist(), reference[:r].tolist(), order=_ORDER))
                for hypothesis, reference, u, r in zip(
                    hypotheses, references, lengths.tolist(), reference_lengths.tolist(), strict=True
                )
            ]
        )
