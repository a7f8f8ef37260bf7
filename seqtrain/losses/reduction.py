"""How the losses of a batch's utterances become one number."""

from __future__ import annotations

import torch

from seqtrain.errors import ArgumentError

__all__ = ["FRAME_REDUCTIONS", "REDUCTIONS", "check_reduction", "reduce"]

REDUCTIONS = ("none", "sum", "batch", "frames", "targets")
"""none: (B,) as it is; sum: over utterances; batch, frames, targets: the sum divided by the number of utterances, of
frames, of targets in the batch. An utterance masked as infeasible adds nothing to the sum and counts in the divisor, so
that the weight of the others doesn't depend on it. There is no "mean": it would not say of what."""

FRAME_REDUCTIONS = ("per_frame", "none", "sum", "batch", "frames")
"""Of criteria that are sums over frames. per_frame: the loss of each frame, zero past an utterance's end; the rest as
above, "none" the sum of each utterance's frames, so that weights of one's own per utterance work as everywhere."""


def check_reduction(reduction: str, *, allowed: tuple[str, ...] = REDUCTIONS) -> None:
    """Raises ArgumentError for a reduction that isn't one of `allowed`."""
    if reduction not in allowed:
        raise ArgumentError(
            f"reduction must be one of {', '.join(map(repr, allowed))}, got {reduction!r}",
            argument="reduction",
        )


def reduce(
    losses: torch.Tensor,
    reduction: str,
    *,
    lengths: torch.Tensor,
    target_lengths: torch.Tensor | None = None,
) -> torch.Tensor:
    """Losses (B,) reduced; of an empty batch every reduction but "none" is zero."""
    if reduction == "none":
        return losses
    total = losses.sum()
    if reduction == "sum":
        return total
    if reduction == "batch":
        return total / max(losses.shape[0], 1)
    if reduction == "frames":
        return total / lengths.sum().clamp(min=1).to(total)
    if target_lengths is None:
        raise ArgumentError("reduction='targets' needs target lengths", argument="reduction")
    return total / target_lengths.sum().clamp(min=1).to(total)
