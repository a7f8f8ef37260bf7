"""RETURNN's `via_layer`."""

from __future__ import annotations

import torch

from seqtrain.compat.returnn.base import Batch, SequenceLoss, Settings
from seqtrain.compat.returnn.layer_output import LayerOutput
from seqtrain.compat.returnn.options import Option
from seqtrain.errors import ArgumentError, ConfigError, ShapeError
from seqtrain.losses.error_signal import error_signal_loss

__all__ = ["ViaLayer"]


class ViaLayer(SequenceLoss):
    """The loss that another layer has, with its error signal, or with output - alignment."""

    class_name = "via_layer"
    needs_time = True
    native = "`error_signal_loss`"
    options = (
        Option("error_signal_layer", None, "`error_signal=`"),
        Option(
            "align_layer", None, "`alignment=`", "the signal is output - alignment, whatever the output is"
        ),
        Option(
            "loss_wrt_to_act_in",
            False,
            "`receiver`",
            "False: the signal reaches the output, and goes on through it",
        ),
    )
    notes = (
        "The signal takes no notice of the layer's am_scale, so that it isn't the gradient of the value; natively "
        "`FastBaumWelchLoss(am_scale=…)` is exact.",
        "A log_softmax output with align_layer has the signal log y - z, not the gradient of cross-entropy.",
    )
    needs_target = False

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        if (self.option("error_signal_layer") is None) == (self.option("align_layer") is None):
            raise ConfigError(
                "loss 'via_layer' needs exactly one of error_signal_layer and align_layer",
                key="loss_opts.align_layer",
            )

    def value(self, batch: Batch) -> torch.Tensor:
        align = self.option("align_layer")
        option = "error_signal_layer" if align is None else "align_layer"
        other = self.other_layer(batch, self.option(option), option)
        if other.loss is None:
            raise ArgumentError(
                f"the layer {self.option(option)!r} has no loss: a fast_bw layer has, and what forwards it",
                argument="layers",
            )
        output = batch.layer.output.detach()
        if other.output.shape != output.shape:
            raise ShapeError(
                f"the layer {self.option(option)!r} has shape {tuple(other.output.shape)}, the layer with the loss "
                f"{tuple(output.shape)}",
                argument="layers",
            )
        signal = other.output if align is None else output - other.output.to(output)
        return error_signal_loss(
            self._receiver(batch.layer),
            other.loss,
            batch.frames.lengths,
            error_signal=signal.to(output.dtype),
        )

    def _receiver(self, layer: LayerOutput) -> torch.Tensor:
        wanted = self.option("loss_wrt_to_act_in")
        if not wanted:
            return layer.output
        if layer.before_activation is None:
            raise ConfigError(
                "loss_wrt_to_act_in needs a layer with an activation", key="loss_opts.loss_wrt_to_act_in"
            )
        if isinstance(wanted, str) and wanted != layer.activation:
            raise ConfigError(
                f"loss_wrt_to_act_in is {wanted!r}, but the layer's activation is {layer.activation!r}",
                key="loss_opts.loss_wrt_to_act_in",
            )
        return layer.before_activation
