"""What criteria summed over frames demand of values: a range, and targets that fit the scores."""

from __future__ import annotations

import torch

from seqtrain.errors import ArgumentError, DtypeError
from seqtrain.losses.frames import Frames
from seqtrain.scores import FLOATS

__all__ = ["check_range", "dense_targets", "labels_or_values"]


def check_range(
    frames: Frames,
    rows: torch.Tensor,
    argument: str,
    requirement: str,
    *,
    low: float = -torch.inf,
    high: float = torch.inf,
) -> None:
    """Raises ArgumentError where rows (N, F) of the frames hold a value outside low … high.

    The message names utterance, frame and value, and ends with the requirement.
    """
    outside = (rows < low) | (rows > high)
    if not bool(outside.any()):
        return
    row, column = outside.nonzero()[0].tolist()
    b, t = frames.locate(row)
    value = float(rows[row, column])
    raise ArgumentError(
        f"{argument} of utterance {b} hold {value:.6g} at frame {t}: {requirement}", argument=argument
    )


def dense_targets(
    frames: Frames, targets: torch.Tensor, size: int | None, dtype: torch.dtype
) -> torch.Tensor:
    """(N, size) of targets (B, T, size) or packed (ΣT, size), any size if None: the frames that count, in that dtype.

    Raises:
        DtypeError: not a float tensor. ShapeError, DeviceError: not like the scores. NonFiniteScoresError.
    """
    if not isinstance(targets, torch.Tensor):
        raise DtypeError(f"targets must be a torch.Tensor, got {type(targets).__name__}", argument="targets")
    if targets.dtype not in FLOATS:
        raise DtypeError(
            f"targets must be float16, bfloat16, float32 or float64, not {targets.dtype}",
            argument="targets",
        )
    values = frames.select(targets, "targets", size)
    frames.check_finite(values, "targets")
    return values.to(dtype)


def labels_or_values(frames: Frames, targets: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(N,) int64 of integer targets (B, T), which are labels, or (N, F) like the rows of float ones (B, T, F).

    Raises:
        As `Frames.select_labels` and `dense_targets`.
    """
    if not isinstance(targets, torch.Tensor) or targets.is_floating_point():
        return dense_targets(frames, targets, rows.shape[1], rows.dtype)
    return frames.select_labels(targets, "targets", rows.shape[1])
