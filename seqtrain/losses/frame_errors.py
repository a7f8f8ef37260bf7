"""Frames that are classified wrong.

error_t = 1 where argmax_k scores_t(k) is not the target, else 0. It has no derivative.
"""

from __future__ import annotations

import torch

from seqtrain.losses.frame_values import labels_or_values
from seqtrain.losses.frames import frames_of, widened
from seqtrain.losses.reduction import FRAME_REDUCTIONS, check_reduction
from seqtrain.scores import Scores

__all__ = ["frame_errors"]


def frame_errors(
    scores: Scores, targets: torch.Tensor, lengths: torch.Tensor | None = None, *, reduction: str = "none"
) -> torch.Tensor:
    """How many frames' best label isn't the target; of labels equally good the lowest is the best.

    Args:
        scores: (B, T, V) or `Packed` (ΣT, V), float16 … float64, larger is better.
        targets: (B, T) int labels, or (B, T, V) float, whose best label is meant (packed: (ΣT,), (ΣT, V)).
        lengths: (B,) int frames of each utterance; None: all T, or those of the packed scores.
        reduction: one of `seqtrain.losses.reduction.FRAME_REDUCTIONS`; "frames" is the frame error rate.

    Returns:
        (B,) counts, or their reduction; float32, float64 for float64, without gradient.

    Raises:
        NonFiniteScoresError (NaN, +inf), LabelError, ShapeError, DtypeError, DeviceError, ArgumentError.
    """
    check_reduction(reduction, allowed=FRAME_REDUCTIONS)
    with torch.no_grad():
        given, frames = frames_of(scores, lengths)
        frames.check_finite(given, "scores", minus_inf=True)
        rows = widened(given)
        wanted = labels_or_values(frames, targets, rows)
        labels = wanted.argmax(dim=1) if wanted.dim() == 2 else wanted
        return frames.reduce((rows.argmax(dim=1) != labels).to(rows.dtype), reduction)
