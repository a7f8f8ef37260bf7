"""A gradient that refuses to be differentiated, for criteria whose error signal comes from elsewhere."""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.errors import DerivativeError

__all__ = ["FinalGradient"]


class FinalGradient(torch.autograd.Function):
    """The gradient as it is; its derivative with respect to it or to the anchor raises `DerivativeError`.

    Applied to (gradient, anchor, reason), the anchor any part of the tensor that the gradient belongs to.
    """

    @staticmethod
    def forward(ctx: Any, gradient: torch.Tensor, anchor: torch.Tensor, reason: str) -> torch.Tensor:
        ctx.reason = reason
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise DerivativeError(ctx.reason)
