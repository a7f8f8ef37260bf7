"""What a batch's sums say about training, as plain numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from seqtrain.fsa import FsaBatch
from seqtrain.functional import compact_posteriors
from seqtrain.scores import Packed, Scores

__all__ = ["SequenceDiagnostics", "sequence_diagnostics"]


@dataclass(frozen=True)
class SequenceDiagnostics:
    """Plain numbers of one batch, over the frames of the utterances that have a path; NaN where there are none.

    Attributes:
        gap: (numerator's sum - denominator's) / frames, nats a frame; at most 0 where the numerator is a part of the
            denominator, and NaN without a denominator.
        occupancy: posterior mass a frame: 1, apart from rounding.
        silence_share: share of the frames' mass on the label that stands for blank or silence; NaN without one.
        alignment_entropy: mean entropy of a frame's label posterior, nats; 0 where the alignment is certain.
        expected_duration: expected frames, blank or silence left out, for each target; NaN without targets.
        infeasible_share: share of the utterances without a path.
    """

    gap: float
    occupancy: float
    silence_share: float
    alignment_entropy: float
    expected_duration: float
    infeasible_share: float

    def scalars(self) -> dict[str, float]:
        """By name, as a log of training takes them."""
        return asdict(self)


def sequence_diagnostics(
    scores: Scores,
    lengths: torch.Tensor,
    numerator: FsaBatch,
    *,
    denominator_sums: torch.Tensor | None = None,
    silence: int | None = None,
    target_lengths: torch.Tensor | None = None,
) -> SequenceDiagnostics:
    """Costs one pass over the numerators, and nothing of the size of the labels or of the denominator.

    Args:
        scores, lengths, numerator: as in `seqtrain.full_sum`; nothing is recorded for a derivative.
        denominator_sums: (B,) the denominator's sums (`full_sum`, `leaky_full_sum`), if there is a denominator.
        silence: the label that stands for blank or silence.
        target_lengths: (B,) int labels of each transcript.

    Raises:
        As `seqtrain.full_sum`, apart from InfeasibleError.
    """
    with torch.no_grad():
        sums, labels, occupancies = compact_posteriors(scores, lengths, numerator, on_infeasible="inf")
        usable = sums > -torch.inf
        device, on_host = sums.device, usable.cpu()
        frames = torch.where(on_host, lengths.cpu(), 0)
        if isinstance(scores, Packed):
            utterance = torch.repeat_interleave(torch.arange(len(sums)), lengths.cpu().long()).to(device)
            rows, inside = occupancies.double(), usable[utterance]
            per_row = labels[utterance]
        else:
            rows = occupancies.double()
            inside = (torch.arange(rows.shape[1]) < frames[:, None]).to(device)
            per_row = labels[:, None].expand(-1, rows.shape[1], -1)
        rows, per_row = rows[inside], per_row[inside]
        total = int(frames.sum())

        def per_frame(mass: torch.Tensor) -> float:
            return float(mass.sum()) / total if total else float("nan")

        silent = rows[per_row == silence] if silence is not None else rows[:0]
        gap = expected_duration = float("nan")
        if denominator_sums is not None:
            gap = per_frame(
                torch.where(usable, sums.double() - denominator_sums.detach().double().to(device), 0.0)
            )
        if target_lengths is not None:
            targets = int(torch.where(on_host, target_lengths.cpu(), 0).sum())
            expected_duration = float(rows.sum() - silent.sum()) / targets if targets else float("nan")
        return SequenceDiagnostics(
            gap=gap,
            occupancy=per_frame(rows),
            silence_share=per_frame(silent) if silence is not None else float("nan"),
            alignment_entropy=per_frame(torch.special.entr(rows)),
            expected_duration=expected_duration,
            infeasible_share=float((~usable).double().mean()) if len(usable) else float("nan"),
        )
