"""Binary cross-entropy of independent sigmoid outputs, as for labels of which several hold at a time.

loss_t = 1/F · Σ_f (-w · target · log σ(x) - (1 - target) · log(1 - σ(x))), with -log σ(x) = softplus(-x)
"""

from __future__ import annotations

import math

import torch

from seqtrain.errors import ArgumentError
from seqtrain.losses.frame_values import check_range, dense_targets
from seqtrain.losses.frames import frames_of, widened
from seqtrain.losses.reduction import FRAME_REDUCTIONS, check_reduction
from seqtrain.scores import Scores

__all__ = ["BinaryCrossEntropyLoss", "binary_cross_entropy"]


def binary_cross_entropy(
    logits: Scores,
    targets: torch.Tensor,
    lengths: torch.Tensor | None = None,
    *,
    pos_weight: float | None = None,
    reduction: str = "none",
) -> torch.Tensor:
    """Mean over the F outputs of a frame of their binary cross-entropies, summed over frames.

    Args:
        logits: (B, T, F) or `Packed` (ΣT, F), float16 … float64: what the sigmoid is taken of.
        targets: (B, T, F) float in [0, 1] (packed: (ΣT, F)); the gradient reaches them too.
        lengths: (B,) int frames of each utterance; None: all T, or those of the packed logits.
        pos_weight: w > 0, the weight of the positive class; None: 1.
        reduction: one of `seqtrain.losses.reduction.FRAME_REDUCTIONS`.

    Returns:
        (B,) losses ≥ 0, or their reduction; float32, float64 for float64.

    Raises:
        NonFiniteScoresError, ShapeError, DtypeError, DeviceError; ArgumentError: targets outside [0, 1].
    """
    check_reduction(reduction, allowed=FRAME_REDUCTIONS)
    _check_weight(pos_weight)
    given, frames = frames_of(logits, lengths, argument="logits")
    frames.check_finite(given, "logits")
    rows = widened(given)
    wanted = dense_targets(frames, targets, rows.shape[1], rows.dtype)
    check_range(frames, wanted, "targets", "they must lie in [0, 1]", low=0.0, high=1.0)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        rows,
        wanted,
        pos_weight=None if pos_weight is None else rows.new_tensor(pos_weight),
        reduction="none",
    )
    return frames.reduce(losses.mean(dim=1), reduction)


class BinaryCrossEntropyLoss(torch.nn.Module):
    """`binary_cross_entropy` with its options kept.

    Called with (logits, targets, lengths=None); shapes and errors as in `binary_cross_entropy`. By default the loss is
    the batch's sum divided by the number of utterances.
    """

    def __init__(self, *, pos_weight: float | None = None, reduction: str = "batch") -> None:
        super().__init__()
        check_reduction(reduction, allowed=FRAME_REDUCTIONS)
        _check_weight(pos_weight)
        self.pos_weight = pos_weight
        self.reduction = reduction

    def forward(
        self, logits: Scores, targets: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        return binary_cross_entropy(
            logits, targets, lengths, pos_weight=self.pos_weight, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        return f"pos_weight={self.pos_weight}, reduction={self.reduction!r}"


def _check_weight(pos_weight: float | None) -> None:
    if pos_weight is not None and not 0.0 < pos_weight < math.inf:
        raise ArgumentError(
            f"pos_weight must be positive and finite, got {pos_weight}", argument="pos_weight"
        )
