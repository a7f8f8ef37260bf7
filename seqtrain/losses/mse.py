"""Mean squared error of each frame's outputs.

loss_t = 1/F · Σ_f (output - target)²
"""

from __future__ import annotations

import torch

from seqtrain.losses.frame_values import labels_or_values
from seqtrain.losses.frames import frames_of, widened
from seqtrain.losses.reduction import FRAME_REDUCTIONS, check_reduction
from seqtrain.scores import Scores

__all__ = ["MSELoss", "mse"]


def mse(
    outputs: Scores, targets: torch.Tensor, lengths: torch.Tensor | None = None, *, reduction: str = "none"
) -> torch.Tensor:
    """Mean over the F outputs of a frame of their squared distances to the targets, summed over frames.

    Args:
        outputs: (B, T, F) or `Packed` (ΣT, F), float16 … float64.
        targets: (B, T, F) float, which the gradient reaches too, or (B, T) int labels, which stand for a 1 at the label
            and 0 elsewhere (packed: (ΣT, F), (ΣT,)).
        lengths: (B,) int frames of each utterance; None: all T, or those of the packed outputs.
        reduction: one of `seqtrain.losses.reduction.FRAME_REDUCTIONS`.

    Returns:
        (B,) losses ≥ 0, or their reduction; float32, float64 for float64.

    Raises:
        NonFiniteScoresError, LabelError, ShapeError, DtypeError, DeviceError, ArgumentError.
    """
    check_reduction(reduction, allowed=FRAME_REDUCTIONS)
    given, frames = frames_of(outputs, lengths, argument="outputs")
    frames.check_finite(given, "outputs")
    rows = widened(given)
    wanted = labels_or_values(frames, targets, rows)
    if wanted.dim() == 1:
        wanted = torch.nn.functional.one_hot(wanted, rows.shape[1]).to(rows.dtype)
    losses = torch.nn.functional.mse_loss(rows, wanted, reduction="none")
    return frames.reduce(losses.mean(dim=1), reduction)


class MSELoss(torch.nn.Module):
    """`mse` with its reduction kept.

    Called with (outputs, targets, lengths=None); shapes and errors as in `mse`. By default the loss is the batch's sum
    divided by the number of utterances.
    """

    def __init__(self, *, reduction: str = "batch") -> None:
        super().__init__()
        check_reduction(reduction, allowed=FRAME_REDUCTIONS)
        self.reduction = reduction

    def forward(
        self, outputs: Scores, targets: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        return mse(outputs, targets, lengths, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
