"""The criteria of the two stages that begin from nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from seqtrain.errors import ArgumentError
from seqtrain.fsa import ctc
from seqtrain.losses import CTCLoss, FastBaumWelchLoss, PriorEstimator
from seqtrain.training.criterion import AutomatonSource, Criterion, CriterionValue
from seqtrain.training.diagnostics import diagnostics

__all__ = ["CtcCriterion", "HmmCriterion", "padded_targets"]


def padded_targets(
    targets: Mapping[str, torch.Tensor], tags: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The targets (B, U) of some utterances, padded, and their lengths (B,).

    Raises:
        ArgumentError: an utterance has none.
    """
    missing = [tag for tag in tags if tag not in targets]
    if missing:
        raise ArgumentError(f"there are no targets of utterance {missing[0]!r}", argument="targets")
    rows = [targets[tag] for tag in tags]
    return pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows], dtype=torch.int64)


class CtcCriterion(Criterion):
    """Connectionist temporal classification, per frame.

    `masked` in the metrics is the number of utterances in a step that the time warp left too short for their
    labels; these count as zero. The other metrics are those of `seqtrain.losses.sequence_diagnostics`.

    Args:
        targets: labels (U,) int64 of each utterance by its id, without blanks.
        blank: column of the blank.
    """

    def __init__(self, targets: Mapping[str, torch.Tensor], *, blank: int) -> None:
        self._targets = targets
        self._blank = blank
        self._loss = CTCLoss(blank=blank, normalize=True, reduction="frames", on_infeasible="mask")

    def __call__(self, tags: Sequence[str], logits: torch.Tensor, lengths: torch.Tensor) -> CriterionValue:
        padded, target_lengths = padded_targets(self._targets, tags)
        loss = self._loss(logits, padded, lengths, target_lengths, tags=tags)
        metrics = {"masked": float(len(self._loss.infeasible.last))}
        automata = ctc(padded, target_lengths, blank=self._blank)
        watched = diagnostics(logits.detach().log_softmax(-1), lengths, automata, silence=self._blank)
        return CriterionValue(loss, {**metrics, **watched})


class HmmCriterion(Criterion):
    """Full-sum training of a hidden Markov model: fast Baum-Welch over automata, per frame.

    The score of label s in a frame is log p(s | x) - a · log p(s), where p(s) is the running mean of the
    softmax over training. `silence` in the metrics is silence's share of the softmax: where it passes one
    half, silence has taken over, and training has failed. The other metrics are as in `CtcCriterion`.

    Args:
        source: gives the automata of utterances by their ids.
        num_labels: columns of the scores.
        silence: column of silence.
        prior_scale: a.
        prior_momentum: share of a step in the running mean.
    """

    def __init__(
        self,
        source: AutomatonSource,
        *,
        num_labels: int,
        silence: int | None,
        prior_scale: float,
        prior_momentum: float,
    ) -> None:
        self._source = source
        self._silence = silence
        self._prior = PriorEstimator(num_labels, mode="running", momentum=prior_momentum)
        self._prior_scale = prior_scale
        self._loss = FastBaumWelchLoss(
            prior=self._prior, prior_scale=prior_scale, reduction="frames", on_infeasible="mask"
        )

    @property
    def log_prior(self) -> torch.Tensor:
        """log p(s) (V,) as it stands."""
        return self._prior.log_prior

    def __call__(self, tags: Sequence[str], logits: torch.Tensor, lengths: torch.Tensor) -> CriterionValue:
        log_probs = logits.log_softmax(dim=-1)
        automata = self._source.automata(tags)
        loss = self._loss(log_probs, lengths, automata)
        scores = log_probs.detach() - self._prior_scale * self.log_prior
        metrics = diagnostics(scores, lengths, automata, silence=self._silence)
        metrics["masked"] = float(len(self._loss.infeasible.last))
        if self._silence is not None:
            inside = torch.arange(log_probs.shape[1]) < lengths[:, None]
            metrics["silence"] = float(log_probs.detach()[:, :, self._silence].exp()[inside].mean())
        return CriterionValue(loss, metrics)

    def prefetch(self, batches: Sequence[Sequence[str]]) -> None:
        self._source.prefetch(batches)

    def state(self) -> dict[str, torch.Tensor]:
        return self._prior.state_dict()

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        self._prior.load_state_dict(dict(state))
