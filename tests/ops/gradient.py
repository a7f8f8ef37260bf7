"""Gradients as values: scores go in, their gradient comes out."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["gradient", "scores_gradient"]


def gradient(value: torch.Tensor, leaf: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """d(Σ weight · value) / d(leaf); the weight is 1 unless given."""
    weights = torch.ones_like(value) if weight is None else weight
    (found,) = torch.autograd.grad(value, leaf, weights)
    return found


def scores_gradient(
    function: Callable[[torch.Tensor], torch.Tensor], scores: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The value of a function of scores, and its summed gradient with respect to just this tensor."""
    leaf = scores.detach().requires_grad_()
    value = function(leaf)
    return value.detach(), gradient(value, leaf)
