"""The torch library `seqtrain::…` that the operators are registered in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from seqtrain.errors import DerivativeError
from seqtrain.torch_versions import register_autograd, register_fake

__all__ = ["LIBRARY", "refuse_derivative", "register"]

_library: Any = torch.library.Library

# The decorator torch.library.custom_op costs 100 µs a call; the library below 6.
# Typed as Any: torch.library has no annotations.
LIBRARY: Any = _library("seqtrain", "DEF")


def register(schema: str, *, cpu: Callable[..., Any], fake: Callable[..., Any]) -> str:
    """Defines an operator with its CPU kernel and its fake (shape) kernel; returns its qualified name."""
    name = schema.split("(", 1)[0]
    LIBRARY.define(schema)
    LIBRARY.impl(name, cpu, "CPU")
    qualified = f"seqtrain::{name}"
    register_fake(qualified, fake, library=LIBRARY)
    return qualified


def refuse_derivative(name: str, reason: str) -> None:
    """Gives an operator a derivative that raises `DerivativeError`: none is better than one silently zero."""

    def backward(ctx: Any, *gradients: torch.Tensor | None) -> None:
        raise DerivativeError(reason)

    register_autograd(name, backward, library=LIBRARY)
