"""Lattice-free MMI as the criterion of a stage that goes on from a trained network."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seqtrain.fsa import Fsa
from seqtrain.losses import LFMMILoss
from seqtrain.losses.reduction import reduce
from seqtrain.training.criterion import AutomatonSource, Criterion, CriterionValue
from seqtrain.training.diagnostics import diagnostics

__all__ = ["LfmmiCriterion"]


class LfmmiCriterion(Criterion):
    """Lattice-free MMI per frame, with a share of the full sum over the transcript.

    The numerators have all pronunciations of the words, but not the phone model's weights; so the loss lacks the
    logarithm of the transcript's probability, a constant, and may be negative. `masked` in the metrics is as in
    `CtcCriterion`; the others are those of `seqtrain.losses.sequence_diagnostics`, the gap to the boosted denominator.

    Args:
        source: gives the automata of utterances by their ids.
        denominator: of the phone model, for all utterances.
        blank: column of blank or silence, if there is one.
        den_scale, acoustic_scale, leak, boost: as in `seqtrain.losses.LFMMILoss`.
        ctc_scale: of the share.
    """

    def __init__(
        self,
        source: AutomatonSource,
        denominator: Fsa,
        *,
        blank: int | None,
        den_scale: float,
        acoustic_scale: float,
        leak: float,
        boost: float,
        ctc_scale: float,
    ) -> None:
        self._source = source
        self._blank = blank
        self._acoustic_scale = acoustic_scale
        self._loss = LFMMILoss(
            denominator, den_scale=den_scale, acoustic_scale=acoustic_scale, leak=leak, boost=boost,
            smoothing=ctc_scale, on_infeasible="mask",
        )  # fmt: skip

    def __call__(self, tags: Sequence[str], logits: torch.Tensor, lengths: torch.Tensor) -> CriterionValue:
        numerator = self._source.automata(tags)
        terms = self._loss.terms(logits, lengths, numerator)
        metrics = diagnostics(
            self._acoustic_scale * logits,
            lengths,
            numerator,
            silence=self._blank,
            denominator_sums=terms.denominator,
        )
        loss = reduce(terms.losses, "frames", lengths=lengths)
        return CriterionValue(loss, {"masked": float(len(self._loss.infeasible.last)), **metrics})

    def prefetch(self, batches: Sequence[Sequence[str]]) -> None:
        self._source.prefetch(batches)
