"""What a RETURNN loss sees of a layer: its output, what went into its activation, and what a loss may hang on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from seqtrain.compat.returnn.gradient_of import with_gradient_of
from seqtrain.errors import ArgumentError, ConfigError, ShapeError
from seqtrain.losses.frames import widened
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
    # In half precision 1e-20 would be 0.
    probabilities = widened(probabilities)
    clipped = probabilities.clamp(min=eps)
    return (with_gradient_of(clipped, probabilities) if use_fake_grad else clipped).log()


def _checked_lengths(output: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """(B,) int64 on the CPU, each in 0 … T."""
    if output.dim() < 2:
        raise ShapeError(
            f"lengths need a time axis (B, T, …), got shape {tuple(output.shape)}", argument="lengths"
        )
    lengths = host_integers(lengths, "lengths", (output.shape[0],)).long()
    bad = ((lengths < 0) | (lengths > output.shape[1])).nonzero()
    if bad.numel():
        b = int(bad[0])
        raise ShapeError(
            f"lengths[{b}] = {int(lengths[b])} must lie in 0 … {output.shape[1]} (T)", argument="lengths"
        )
    return lengths


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

    def __post_init__(self) -> None:
        if not isinstance(self.output, torch.Tensor):
            raise ArgumentError(
                f"a layer's output must be a torch.Tensor, got {type(self.output).__name__}", argument="layer"
            )
        if self.lengths is not None:
            object.__setattr__(self, "lengths", _checked_lengths(self.output, self.lengths))

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
        if activation is None:
            return cls(before_activation, lengths)
        if activation not in ACTIVATIONS:
            raise ConfigError(
                f"activation {activation!r} is unknown; there are: {', '.join(sorted(ACTIVATIONS))}",
                key="activation",
            )
        if not before_activation.is_floating_point():
            raise ArgumentError(
                f"what goes into an activation must be floating-point, got {before_activation.dtype}",
                argument="layer",
            )
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
