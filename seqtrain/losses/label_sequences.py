"""Checks of pairs of label sequences, hypothesis and reference, as measures that compare them take them."""

from __future__ import annotations

import torch

from seqtrain.errors import DeviceError, DtypeError, ShapeError
from seqtrain.scores import INTEGERS, host_integers

__all__ = ["check_sequences"]


def check_sequences(
    hypotheses: torch.Tensor,
    references: torch.Tensor,
    hypothesis_lengths: torch.Tensor,
    reference_lengths: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The lengths of (B, U) hypotheses and (B, R) references, each (B,) int64 on the CPU.

    Raises:
        ShapeError, DtypeError, DeviceError: not integers of these shapes on one device; a length outside 0 … U or R.
    """
    for argument, labels in (("hypotheses", hypotheses), ("references", references)):
        if not isinstance(labels, torch.Tensor):
            raise DtypeError(
                f"{argument} must be a torch.Tensor, got {type(labels).__name__}", argument=argument
            )
        if labels.dtype not in INTEGERS:
            raise DtypeError(f"{argument} must be integer labels, got {labels.dtype}", argument=argument)
        if labels.dim() != 2:
            raise ShapeError(
                f"{argument} must have shape (B, any), got {tuple(labels.shape)}", argument=argument
            )
    if references.shape[0] != hypotheses.shape[0]:
        raise ShapeError(
            f"references must be as many as the hypotheses, {hypotheses.shape[0]}, got {references.shape[0]}: repeat "
            "those of an utterance with several hypotheses",
            argument="references",
        )
    if references.device != hypotheses.device:
        raise DeviceError(
            f"references are on {references.device}, the hypotheses on {hypotheses.device}: move one to the other",
            argument="references",
        )
    return (
        _checked_lengths(hypothesis_lengths, hypotheses, "hypothesis_lengths", "hypotheses"),
        _checked_lengths(reference_lengths, references, "reference_lengths", "references"),
    )


def _checked_lengths(
    lengths: torch.Tensor, labels: torch.Tensor, argument: str, of_argument: str
) -> torch.Tensor:
    lengths = host_integers(lengths, argument, (labels.shape[0],)).long()
    bad = (lengths < 0) | (lengths > labels.shape[1])
    if bool(bad.any()):
        b = int(bad.nonzero()[0])
        raise ShapeError(
            f"{argument}[{b}] = {int(lengths[b])} must lie in 0 … {labels.shape[1]}, the labels of {of_argument}",
            argument=argument,
        )
    return lengths
