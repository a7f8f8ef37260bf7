"""A value with another expression's gradient: what RETURNN's hand-written gradients come to."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["with_gradient_of"]


class _WithGradientOf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, gradients[0]


def with_gradient_of(value: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`value` bit for bit, whatever its size or sign, with the gradient that `other` (of its shape) has."""
    found: torch.Tensor = _WithGradientOf.apply(value.detach(), other)  # type: ignore[no-untyped-call]  # of torch
    return found
