"""Training by an error signal that comes from elsewhere: its value is given, and so is its gradient.

loss_b = the given loss, ∂ loss_b / ∂ x[b, t, v] = signal[b, t, v] for the tensor x that is to receive the signal: the
output of the network, or what goes into its activation. With an alignment z (posteriors of a full sum, or one-hot) the
signal is output - z, which for x the input of a softmax is the gradient of the cross-entropy against z. E. Beck et al.:
this is RETURNN's "via layer" idiom, and what an external discriminative trainer returns.
"""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.errors import ArgumentError, DtypeError, ShapeError
from seqtrain.losses.derivative import FinalGradient
from seqtrain.losses.frames import Frames, frames_of, widened
from seqtrain.losses.reduction import check_reduction, reduce
from seqtrain.scores import Packed, Scores

__all__ = ["ErrorSignalLoss", "error_signal_loss"]

_REDUCTIONS = ("none", "sum", "batch", "frames")
_ONE_OF = (
    "pass exactly one of error_signal and alignment: the signal itself, or what the output is compared with"
)


class _Given(torch.autograd.Function):
    """Losses whose gradient with respect to the rows is the loss's incoming gradient times the signal."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, losses: torch.Tensor, signal: torch.Tensor, utterance: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(rows, signal, utterance)
        return losses.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        rows, signal, utterance = ctx.saved_tensors
        gradient = (gradients[0].to(signal)[utterance][:, None] * signal).to(rows.dtype)
        reason = "a given error signal has no derivative: there is no second derivative of this loss"
        found: torch.Tensor = FinalGradient.apply(gradient, rows[:0], reason)  # type: ignore[no-untyped-call]  # of torch
        return found, None, None, None


def _values(tensor: Scores) -> torch.Tensor:
    return tensor.values if isinstance(tensor, Packed) else tensor


def _rows_like(tensor: Scores, frames: Frames, labels: int, argument: str) -> torch.Tensor:
    values = _values(tensor)
    if isinstance(tensor, Packed) and not torch.equal(tensor.lengths.cpu().long(), frames.lengths):
        raise ShapeError(
            f"{argument} is packed by other lengths, {tensor.lengths.tolist()!s:.80}, than the receiver, "
            f"{frames.lengths.tolist()!s:.80}",
            argument=argument,
        )
    if not values.is_floating_point():
        raise DtypeError(f"{argument} must be floating-point, got {values.dtype}", argument=argument)
    rows = frames.select(values, argument, labels).detach()
    frames.check_finite(rows, argument)
    return widened(rows)


def error_signal_loss(
    receiver: Scores,
    losses: torch.Tensor,
    lengths: torch.Tensor | None = None,
    *,
    error_signal: Scores | None = None,
    alignment: Scores | None = None,
    output: Scores | None = None,
    reduction: str = "none",
) -> torch.Tensor:
    """The given losses, with the given gradient.

    Args:
        receiver: (B, T, V) or `Packed`: the tensor that the signal is the gradient of, before or after an activation.
        losses: (B,) float value of the loss of each utterance; gets no gradient. ±inf is legal: an aligner's word
            for an utterance it skipped.
        lengths: (B,) int frames; None: all. Beyond them the gradient is 0, whatever the signal holds.
        error_signal: like the receiver, ∂ loss_b / ∂ receiver[b].
        alignment: like the receiver, z; the signal is output - z. Excludes `error_signal`.
        output: with an alignment, what it is subtracted from where that isn't the receiver: the activation's output.
        reduction: "none", "sum", "batch" or "frames".

    Returns:
        (B,) losses in float32 (float64 for a float64 receiver), or their reduction.

    Raises:
        ShapeError, DtypeError, DeviceError, NonFiniteScoresError: names argument, utterance and frame; ArgumentError
        unless exactly one of `error_signal` and `alignment` is given. DerivativeError: when the gradient is
        differentiated again.
    """
    check_reduction(reduction, allowed=_REDUCTIONS)
    if error_signal is not None and alignment is not None:
        raise ArgumentError(_ONE_OF, argument="error_signal")
    if output is not None and alignment is None:
        raise ArgumentError("output is used with an alignment alone", argument="output")
    rows, frames = frames_of(receiver, lengths, argument="receiver")
    labels = rows.shape[1]
    if error_signal is not None:
        signal = _rows_like(error_signal, frames, labels, "error_signal")
    elif alignment is not None:
        compared = rows.detach() if output is None else _rows_like(output, frames, labels, "output")
        signal = widened(compared) - _rows_like(alignment, frames, labels, "alignment")
    else:
        raise ArgumentError(_ONE_OF, argument="error_signal")
    if not isinstance(losses, torch.Tensor) or losses.shape != (frames.batch,):
        found = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
        raise ShapeError(
            f"losses must have shape ({frames.batch},), one an utterance, got {found}", argument="losses"
        )
    nan = torch.isnan(losses).nonzero()
    if nan.numel():
        raise ArgumentError(f"losses[{int(nan[0])}] is NaN", argument="losses")
    given = losses.detach().to(device=rows.device, dtype=widened(rows).dtype)
    utterance = torch.repeat_interleave(torch.arange(frames.batch), frames.lengths).to(rows.device)
    values: torch.Tensor = _Given.apply(rows, given, signal.to(given.dtype), utterance)  # type: ignore[no-untyped-call]  # of torch
    return reduce(values, reduction, lengths=frames.lengths)


class ErrorSignalLoss(torch.nn.Module):
    """`error_signal_loss` with its reduction kept; called with its arguments."""

    def __init__(self, *, reduction: str = "batch") -> None:
        super().__init__()
        check_reduction(reduction, allowed=_REDUCTIONS)
        self.reduction = reduction

    def forward(
        self,
        receiver: Scores,
        losses: torch.Tensor,
        lengths: torch.Tensor | None = None,
        *,
        error_signal: Scores | None = None,
        alignment: Scores | None = None,
        output: Scores | None = None,
    ) -> torch.Tensor:
        return error_signal_loss(
            receiver, losses, lengths, error_signal=error_signal, alignment=alignment, output=output,
            reduction=self.reduction,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
