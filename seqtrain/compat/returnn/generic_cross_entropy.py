"""RETURNN's `generic_ce`."""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.compat.returnn.base import Batch, ReturnnLoss
from seqtrain.errors import ConfigError
from seqtrain.losses.derivative import FinalGradient
from seqtrain.losses.frames import widened

__all__ = ["GenericCrossEntropy"]


class _ManualGradient(torch.autograd.Function):
    """Values with a gradient that takes no notice of the incoming one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, losses: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gradient, x)
        return losses.clone()

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        gradient, x = ctx.saved_tensors
        reason = (
            "generic_ce's hand-written gradient has no derivative; the native generic_cross_entropy's has"
        )
        found: torch.Tensor = FinalGradient.apply(gradient, x[:0], reason)  # type: ignore[no-untyped-call]  # of torch
        return found, None, None


class GenericCrossEntropy(ReturnnLoss):
    """-log of the target's share of positive outputs, of any activation."""

    class_name = "generic_ce"
    native = "`generic_cross_entropy`"
    notes = (
        "The gradient ignores the incoming one: no scale or norm factor changes it. Natively it is exact.",
        "It is g · (share - target) with g = Σ_k ∂ log y_k / ∂ x: exact for element-wise activations alone.",
    )

    def scores(self, layer: Any) -> torch.Tensor:
        output: torch.Tensor = layer.output
        return output

    def value(self, batch: Batch) -> torch.Tensor:
        x = batch.layer.before_activation
        if x is None or batch.layer.activation is None:
            raise ConfigError("loss 'generic_ce' needs a layer with an activation", key="activation")
        with torch.enable_grad():
            apart = x.detach().requires_grad_()
            log_output = type(batch.layer).of(apart, activation=batch.layer.activation).output.log()
            (slope,) = torch.autograd.grad(log_output.sum(), apart)
        shares = widened(batch.rows(batch.layer.output.detach()))
        shares = shares / shares.sum(-1, keepdim=True)
        labels = batch.labels(shares.shape[-1])
        losses = -shares.clamp(1e-20, 1e20).gather(1, labels[:, None])[:, 0].log()
        one_hot = torch.nn.functional.one_hot(labels, shares.shape[-1])
        rows = batch.frames.select(x, "layer output", x.shape[-1])
        gradient = batch.frames.select(slope, "layer output", x.shape[-1]) * (shares - one_hot)
        values: torch.Tensor = _ManualGradient.apply(rows, losses, gradient.to(rows.dtype))  # type: ignore[no-untyped-call]  # of torch
        return values
