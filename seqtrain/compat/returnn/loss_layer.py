"""RETURNN's layer `loss`: another loss's value of each frame as a layer's output."""

from __future__ import annotations

import torch

from seqtrain.compat.returnn.base import ReturnnLoss
from seqtrain.compat.returnn.layer_output import LayerOutput
from seqtrain.compat.returnn.options import REQUIRED, Option
from seqtrain.errors import ConfigError

__all__ = ["LOSS_LAYER_KEYS", "loss_layer"]

LOSS_LAYER_KEYS = (
    Option("loss_", REQUIRED, "the criterion's module"),
    Option("loss_opts_", None, "its options"),
    Option("target_", None, "`targets`", "None: the default target, where the loss needs one"),
    Option("use_error", False, "`of='error'`"),
)
"""Keys of the layer."""


def loss_layer(
    loss: ReturnnLoss,
    source: LayerOutput,
    targets: torch.Tensor | None,
    target_lengths: torch.Tensor | None = None,
    *,
    use_error: bool = False,
    train: bool = True,
) -> LayerOutput:
    """The layer's output: (B, T) float32 values (or errors) of each frame, also of the padding; (B,) without a time
    axis.

    Args:
        loss: built of `loss_` and `loss_opts_`, with use_flatten_frames off. One that gives one number a frame.
        source: the layer it is of.
        targets, target_lengths: as a loss takes them.

    Natively: `LossLayer`, whose padding is 0.

    Raises:
        ConfigError: the loss doesn't give one number a frame.
    """
    if loss.option("use_flatten_frames"):
        raise ConfigError("the loss of a loss layer is built with use_flatten_frames=False", key="loss_opts_")
    result = loss(source, None, targets, target_lengths, train=train, reduce=False)
    found = result.error if use_error else result.value
    shape = source.output.shape[:1] if source.lengths is None else source.output.shape[:2]
    if not loss.framewise or found is None or found.numel() != shape.numel():
        kind = "error" if use_error else "value"
        raise ConfigError(
            f"loss {loss.class_name!r} has no {kind} for each frame, as a loss layer needs", key="loss_"
        )
    return LayerOutput(found.reshape(shape).to(torch.float32), source.lengths)
