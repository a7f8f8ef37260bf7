"""RETURNN's `sprint`."""

from __future__ import annotations

import torch

from seqtrain.compat.returnn.base import Batch, SequenceLoss
from seqtrain.compat.returnn.options import REQUIRED, Option
from seqtrain.errors import ArgumentError, ConfigError
from seqtrain.losses.extern_sprint import extern_sprint_loss
from seqtrain.losses.sources import error_signal_source

__all__ = ["Sprint", "softmax_logits", "tags_of"]


def softmax_logits(batch: Batch, name: str) -> torch.Tensor:
    """(B, T, V) the input of the layer's softmax.

    Raises:
        ConfigError: the layer's activation isn't softmax.
    """
    if batch.layer.activation != "softmax" or batch.layer.before_activation is None:
        raise ConfigError(
            f"loss {name!r} needs a layer with the activation softmax, got {batch.layer.activation!r}",
            key="activation",
        )
    return batch.layer.before_activation


def tags_of(batch: Batch) -> list[str]:
    """Names of the sequences.

    Raises:
        ArgumentError: there are none.
    """
    if batch.tags is None:
        raise ArgumentError("the aligner is asked by the names of the sequences: pass tags", argument="tags")
    return list(batch.tags)


class Sprint(SequenceLoss):
    """Loss and error signal from an aligner."""

    class_name = "sprint"
    needs_time = True
    native = "`ExternSprintLoss`"
    options = (
        Option(
            "sprint_opts", REQUIRED, "an aligner", "pass `aligner=` to build_loss instead of an executable"
        ),
    )
    notes = ("A sequence that the aligner skips makes the value inf; natively it is named, or masked.",)
    needs_target = False

    def value(self, batch: Batch) -> torch.Tensor:
        logits = softmax_logits(batch, "sprint")
        if self.settings.source is None:
            raise ConfigError(
                "loss 'sprint' needs an aligner: build_loss(…, aligner=AlignerClient(…))",
                key="loss_opts.sprint_opts",
            )
        return extern_sprint_loss(
            logits,
            batch.frames.lengths,
            tags_of(batch),
            error_signal_source(self.settings.source),
            on_infeasible="inf",
        )
