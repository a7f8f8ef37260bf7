"""What the metrics of every stage hold beside the loss."""

from __future__ import annotations

import math

import torch

from seqtrain.fsa import FsaBatch
from seqtrain.losses import sequence_diagnostics

__all__ = ["diagnostics"]


def diagnostics(
    scores: torch.Tensor,
    lengths: torch.Tensor,
    numerator: FsaBatch,
    *,
    silence: int | None,
    denominator_sums: torch.Tensor | None = None,
) -> dict[str, float]:
    """`sequence_diagnostics` of a step, those that are defined for it; occupancy, always 1, is left out."""
    found = sequence_diagnostics(
        scores.detach(), lengths, numerator, silence=silence, denominator_sums=denominator_sums
    ).scalars()
    del found["occupancy"]
    return {name: value for name, value in found.items() if not math.isnan(value)}
