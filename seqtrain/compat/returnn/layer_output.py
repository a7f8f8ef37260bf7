"""What a RETURNN loss sees of a layer: its output, what went into its activation, and what a loss may hang on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from seqtrain.errors import ConfigError, ShapeError
from seqtrain.scores import host_integers

__all__ = ["ACTIVATIONS", "LayerOutput", "activation_name", "safe_log"]

_SMALLEST = 1e-20


def _softmax(x: torch.Tensor) -> torch.Tensor:
    return x.softmax(-1)


def _log_softmax(x: torch.Tensor) -> torch.Tensor:
    return x.log_softmax(-1)


def _identity(x: torch.Tensor) -> torch.Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "identity": _identity,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "sigmoid": torch.sigmoid,
    "log_sigmoid": torch.nn.functional.logsigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "exp": torch.exp,
    "softplus": torch.nn.functional.softplus,
    "elu": torch.nn.functional.elu,
    "selu": torch.nn.functional.selu,
    "gelu": torch.nn.functional.gelu,
    "swish": torch.nn.functional.silu,
    "square": torch.square,
    "abs": torch.abs,
}
"""RETURNN's names of activations."""


def activation_name(layer: dict[str, object]) -> str | None:
    """The activation that a layer dict names: None without the key, "softmax" for a layer of that class.

    Raises:
        ConfigError: an unknown name; lists those there are.
    """
    name = layer.get("activation", "softmax" if layer.get("class") == "softmax" else None)
    if name is None:
        return None
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ConfigError(
            f"activation {name!r} is unknown; there are: {', '.join(sorted(ACTIVATIONS))}", key="activation"
        )
    return name


def safe_log(
    probabilities: torch.Tensor, *, eps: float = _SMALLEST, use_fake_grad: bool = True
) -> torch.Tensor:
    """log(max(p, eps)); with `use_fake_grad` the gradient is 1 / max(p, eps) also where p is clipped."""
    clipped = probabilities.clamp(min=eps)
    if use_fake_grad:
        clipped = probabilities + (clipped - probabilities).detach()
    return clipped.log()


@dataclass(frozen=True)
class LayerOutput:
    """A layer's output.

    Attributes:
        output: (B, T, F), (B, T), (B, F), (B,), or any shape without a time axis; batch first. Integer labels for a
            sparse layer.
        lengths: (B,) int64 frames where there is a time axis (the second), else None.
        activation: RETURNN's name, or None where the layer has none.
        before_activation: what went into it, like the output.
        loss: (B,) `output_loss` of a fast_bw layer, and of what forwards it.
        num_labels: number of labels of a sparse output.
        beam_scores: (B, K) log scores of the hypotheses where the output is a beam's, (B · K, …), beam inner.
        weights: (input (B, T, D), weight (V, D), bias (V,)) of a linear layer with transposed weights, for sampling.
    """

    output: torch.Tensor
    lengths: torch.Tensor | None = None
    activation: str | None = None
    before_activation: torch.Tensor | None = None
    loss: torch.Tensor | None = None
    num_labels: int | None = None
    beam_scores: torch.Tensor | None = None
    weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def of(
        cls,
        before_activation: torch.Tensor,
        lengths: torch.Tensor | None = None,
        *,
        activation: str | None = None,
    ) -> LayerOutput:
        """The output of a layer with this activation; lengths (B,) int of any dtype and device.

        Raises:
            ShapeError, DtypeError: lengths that aren't (B,) integers in 0 … T.
        """
        if lengths is not None:
            if before_activation.dim() < 2:
                raise ShapeError(
                    f"lengths need a time axis (B, T, …), got shape {tuple(before_activation.shape)}",
                    argument="lengths",
                )
            lengths = host_integers(lengths, "lengths", (before_activation.shape[0],)).long()
            bad = ((lengths < 0) | (lengths > before_activation.shape[1])).nonzero()
            if bad.numel():
                b = int(bad[0])
                raise ShapeError(
                    f"lengths[{b}] = {int(lengths[b])} must lie in 0 … {before_activation.shape[1]} (T)",
                    argument="lengths",
                )
        if activation is None:
            return cls(before_activation, lengths)
        return cls(ACTIVATIONS[activation](before_activation), lengths, activation, before_activation)

    def log_output(self) -> torch.Tensor:
        """log of the output: from the activation's input where that is exact, else clipped at 1e-20."""
        x = self.before_activation
        if x is not None and self.activation == "softmax":
            return x.log_softmax(-1)
        if x is not None and self.activation == "sigmoid":
            return torch.nn.functional.logsigmoid(x)
        if x is not None and self.activation == "exp":
            return x
        return safe_log(self.output)
