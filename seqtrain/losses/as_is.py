"""Values that are a loss already, computed by the network itself or by another criterion.

loss_t = Σ values_t over whatever axes follow the frames
"""

from __future__ import annotations

import torch

from seqtrain.errors import ArgumentError, DtypeError, ShapeError
from seqtrain.losses.frames import frames_of, widened
from seqtrain.losses.reduction import FRAME_REDUCTIONS, check_reduction
from seqtrain.scores import Packed, Scores

__all__ = ["AsIsLoss", "as_is"]


def as_is(values: Scores, lengths: torch.Tensor | None = None, *, reduction: str = "none") -> torch.Tensor:
    """The values as a loss, summed over frames.

    Args:
        values: (B, T), (B, T, F, …), `Packed` (ΣT,), (ΣT, F, …), or a value (B,) for each utterance; float16 … float64,
            of any sign.
        lengths: (B,) int frames of each utterance; None: all T, or those of the packed values. Values (B,) have none.
        reduction: one of `seqtrain.losses.reduction.FRAME_REDUCTIONS`; of values (B,) "none", "sum" or "batch".

    Returns:
        (B,) sums, or their reduction; float32, float64 for float64.

    Raises:
        NonFiniteScoresError (NaN, an infinity), ShapeError, DtypeError; ArgumentError: frames of values (B,) asked for.
    """
    check_reduction(reduction, allowed=FRAME_REDUCTIONS)
    packed = isinstance(values, Packed)
    tensor = values.values if isinstance(values, Packed) else values
    if not isinstance(tensor, torch.Tensor):
        raise DtypeError(f"values must be a torch.Tensor, got {type(tensor).__name__}", argument="values")
    if tensor.dim() == 0:
        raise ShapeError(
            "values must have shape (B,), (B, T) or (B, T, F, …), got a scalar: it needs no criterion",
            argument="values",
        )
    per_utterance = tensor.dim() == 1 and not packed
    if per_utterance:
        _check_without_frames(lengths, reduction)
        tensor = tensor[:, None]
    leading = 1 if packed else 2
    tensor = tensor.unsqueeze(leading) if tensor.dim() == leading else tensor.flatten(leading)
    scores = values._replace(values=tensor) if isinstance(values, Packed) else tensor
    rows, frames = frames_of(scores, lengths, argument="values")
    frames.check_finite(rows, "values")
    return frames.reduce(widened(rows).sum(dim=1), reduction)


class AsIsLoss(torch.nn.Module):
    """`as_is` with its reduction kept.

    Called with (values, lengths=None); shapes and errors as in `as_is`. By default the loss is the batch's sum divided
    by the number of utterances.
    """

    def __init__(self, *, reduction: str = "batch") -> None:
        super().__init__()
        check_reduction(reduction, allowed=FRAME_REDUCTIONS)
        self.reduction = reduction

    def forward(self, values: Scores, lengths: torch.Tensor | None = None) -> torch.Tensor:
        return as_is(values, lengths, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


def _check_without_frames(lengths: torch.Tensor | None, reduction: str) -> None:
    if lengths is not None:
        raise ArgumentError(
            "lengths were given, but values (B,) are one for each utterance and have no frames: leave lengths out",
            argument="lengths",
        )
    if reduction in ("per_frame", "frames"):
        raise ArgumentError(
            f"reduction={reduction!r} needs frames, and values (B,) have none: use 'none', 'sum' or 'batch'",
            argument="reduction",
        )
