"""Minimum label error rate as the criterion of a stage that starts from a model that CTC has trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from seqtrain.errors import ArgumentError
from seqtrain.fsa import ctc
from seqtrain.losses import CTCLoss, MWERLoss
from seqtrain.training.criteria import padded_targets
from seqtrain.training.criterion import Criterion, CriterionValue
from seqtrain.training.diagnostics import diagnostics

__all__ = ["MwerCriterion"]


class MwerCriterion(Criterion):
    """Expected label errors of samples from the model, per label of the reference, and a share of CTC per frame.

    `expected_errors` in the metrics is the error rate that the samples have; the others are as in `CtcCriterion`.

    Args:
        targets: labels (U,) int64 of each utterance by its id, without blanks.
        blank: column of the blank.
        count: samples of an utterance, at least 2.
        ctc_scale: of CTC, which keeps likely what the samples never show.
        seed: of the samples; their generator is part of a checkpoint.
    """

    def __init__(
        self, targets: Mapping[str, torch.Tensor], *, blank: int, count: int, ctc_scale: float, seed: int
    ) -> None:
        if not 0 <= ctc_scale < float("inf"):
            raise ArgumentError(
                f"ctc_scale must be finite and at least 0, got {ctc_scale}", argument="ctc_scale"
            )
        self._targets = targets
        self._blank = blank
        self._mwer = MWERLoss("sample", count=count, estimate="sampled", blank=blank, reduction="targets")
        self._ctc = CTCLoss(blank=blank, reduction="frames", on_infeasible="mask")
        self._ctc_scale = ctc_scale
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, tags: Sequence[str], logits: torch.Tensor, lengths: torch.Tensor) -> CriterionValue:
        targets, target_lengths = padded_targets(self._targets, tags)
        batch = (targets, lengths, target_lengths)
        risk = self._mwer(logits, *batch, generator=self._generator)
        loss = risk + self._ctc_scale * self._ctc(logits, *batch, tags=tags)
        automata = ctc(targets, target_lengths, blank=self._blank)
        metrics = diagnostics(logits.detach().log_softmax(-1), lengths, automata, silence=self._blank)
        metrics["expected_errors"] = float(risk.detach())
        metrics["masked"] = float(len(self._ctc.infeasible.last))
        return CriterionValue(loss, metrics)

    def state(self) -> dict[str, torch.Tensor]:
        return {"generator": self._generator.get_state()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        self._generator.set_state(state["generator"])
