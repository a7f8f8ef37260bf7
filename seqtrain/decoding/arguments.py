"""Checks of what decoders take."""

from __future__ import annotations

from torch import Tensor

from seqtrain.errors import ArgumentError, ShapeError

__all__ = ["check_ctc_arguments"]


def check_ctc_arguments(scores: Tensor, lengths: Tensor, blank: int) -> None:
    """Raises where (B, T, V) scores, (B,) lengths and the column of blank don't fit each other.

    Raises:
        ShapeError: the shapes don't fit, or a length exceeds T.
        ArgumentError: `blank` is no column of `scores`.
    """
    if scores.dim() != 3:
        raise ShapeError(f"scores must be (B, T, V), got shape {tuple(scores.shape)}", argument="scores")
    batch, frames, num_labels = scores.shape
    if lengths.shape != (batch,):
        raise ShapeError(
            f"lengths must be ({batch},) for {batch} utterances, got {tuple(lengths.shape)}",
            argument="lengths",
        )
    if not 0 <= blank < num_labels:
        raise ArgumentError(f"blank is {blank}, but scores have {num_labels} columns", argument="blank")
    if batch and (int(lengths.max()) > frames or int(lengths.min()) < 0):
        raise ShapeError(
            f"lengths must lie in 0..{frames}, got {int(lengths.min())}..{int(lengths.max())}",
            argument="lengths",
        )
