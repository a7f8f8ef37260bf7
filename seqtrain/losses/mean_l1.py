"""Mean absolute error of each frame's outputs.

loss_t = 1/F · Σ_f |output - target|, whose derivative at equality is taken to be 0
"""

from __future__ import annotations

import torch

from seqtrain.losses.frame_values import dense_targets
from seqtrain.losses.frames import frames_of, widened
from seqtrain.losses.reduction import FRAME_REDUCTIONS, check_reduction
from seqtrain.scores import Scores

__all__ = ["MeanL1Loss", "mean_l1"]


def mean_l1(
    outputs: Scores, targets: torch.Tensor, lengths: torch.Tensor | None = None, *, reduction: str = "none"
) -> torch.Tensor:
    """Mean over the F outputs of a frame of their distances to the targets, summed over frames.

    Args:
        outputs: (B, T, F) or `Packed` (ΣT, F), float16 … float64.
        targets: (B, T, F) float (packed: (ΣT, F)); the gradient reaches them too.
        lengths: (B,) int frames of each utterance; None: all T, or those of the packed outputs.
        reduction: one of `seqtrain.losses.reduction.FRAME_REDUCTIONS`.

    Returns:
        (B,) losses ≥ 0, or their reduction; float32, float64 for float64.

    Raises:
        NonFiniteScoresError, ShapeError, DtypeError, DeviceError, ArgumentError.
    """
    check_reduction(reduction, allowed=FRAME_REDUCTIONS)
    given, frames = frames_of(outputs, lengths, argument="outputs")
    frames.check_finite(given, "outputs")
    rows = widened(given)
    wanted = dense_targets(frames, targets, rows.shape[1], rows.dtype)
    losses = torch.nn.functional.l1_loss(rows, wanted, reduction="none")
    return frames.reduce(losses.mean(dim=1), reduction)


class MeanL1Loss(torch.nn.Module):
    """`mean_l1` with its reduction kept.

    Called with (outputs, targets, lengths=None); shapes and errors as in `mean_l1`. By default the loss is the batch's
    sum divided by the number of utterances.
    """

    def __init__(self, *, reduction: str = "batch") -> None:
        super().__init__()
        check_reduction(reduction, allowed=FRAME_REDUCTIONS)
        self.reduction = reduction

    def forward(
        self, outputs: Scores, targets: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        return mean_l1(outputs, targets, lengths, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
