"""Minimum phone frame error as the criterion of a stage that goes on from a trained network."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seqtrain.fsa import Fsa
from seqtrain.functional import best_path, full_sum
from seqtrain.label_map import LabelMap
from seqtrain.lattice import intersect
from seqtrain.losses import LatticeRiskLoss
from seqtrain.training.criterion import AutomatonSource, Criterion, CriterionValue
from seqtrain.training.diagnostics import diagnostics

__all__ = ["MpfeCriterion"]


class MpfeCriterion(Criterion):
    """Frames whose phone is wrong, expected over a lattice of the phone model, exactly; and a share of the full sum
    over the transcript.

    The reference is the transcript's best path by the network as it stands. `expected_errors` in the metrics is the
    share of wrong frames, `truncated` the states of the lattices that the beam dropped, per frame; the others are those
    of `seqtrain.losses.sequence_diagnostics`.

    Args:
        source: gives the automata of utterances by their ids.
        denominator: of the phone model, for all utterances.
        blank: column of blank or silence, if there is one.
        phones: what becomes of labels before they are compared (states to phones); None: nothing.
        beam, acoustic_scale: of the lattice.
        ctc_scale: of the share.
    """

    def __init__(
        self,
        source: AutomatonSource,
        denominator: Fsa,
        *,
        blank: int | None,
        phones: LabelMap | None,
        beam: float,
        acoustic_scale: float,
        ctc_scale: float,
    ) -> None:
        self._source = source
        self._denominator = denominator
        self._blank = blank
        self._beam = beam
        self._acoustic_scale = acoustic_scale
        self._ctc_scale = ctc_scale
        self._loss = LatticeRiskLoss(
            "frame_accuracy", options={"label_map": phones}, reduction="frames", on_infeasible="mask"
        )

    def __call__(self, tags: Sequence[str], logits: torch.Tensor, lengths: torch.Tensor) -> CriterionValue:
        log_probs = logits.log_softmax(dim=-1)
        numerator = self._source.automata(tags)
        fitting = full_sum(log_probs, lengths, numerator, on_infeasible="mask")
        reference = best_path(log_probs.detach(), lengths, numerator, on_infeasible="mask")
        # An utterance that is too short for its transcript has no reference; its lattice is left out with it.
        usable = torch.where(reference.score > -torch.inf, lengths, 0)
        lattice = intersect(
            self._acoustic_scale * log_probs, usable, self._denominator, beam=self._beam, on_infeasible="mask"
        )
        accuracy = self._loss(lattice, reference.labels)
        frames = lengths.sum().clamp(min=1)
        loss = 1.0 + accuracy - self._ctc_scale * fitting.sum() / frames
        metrics = diagnostics(log_probs, lengths, numerator, silence=self._blank)
        metrics["expected_errors"] = 1.0 + float(accuracy.detach())
        metrics["truncated"] = float(lattice.truncated.sum() / frames)
        return CriterionValue(loss, metrics)

    def prefetch(self, batches: Sequence[Sequence[str]]) -> None:
        self._source.prefetch(batches)
