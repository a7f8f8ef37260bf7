"""RETURNN's `fast_bw`, the loss."""

from __future__ import annotations

import torch

from seqtrain.compat.returnn.base import Batch, SequenceLoss
from seqtrain.compat.returnn.full_sum import baum_welch, without_weights
from seqtrain.compat.returnn.options import REQUIRED, Option
from seqtrain.compat.returnn.sprint import softmax_logits, tags_of
from seqtrain.errors import ConfigError
from seqtrain.fsa import FsaBatch
from seqtrain.losses.error_signal import error_signal_loss
from seqtrain.losses.frames import widened
from seqtrain.losses.sources import AutomatonSource, automaton_source

__all__ = ["FastBaumWelch", "scaled_automata"]


def scaled_automata(source: AutomatonSource | None, batch: Batch, tdp_scale: float) -> FsaBatch:
    """The automata of the batch's sequences; a scale of 0 allows what was forbidden, as there.

    Raises:
        ConfigError: there is no aligner to ask.
    """
    if source is None:
        raise ConfigError(
            "automata come from an aligner: build_loss(…, aligner=AlignerClient(…))",
            key="loss_opts.sprint_opts",
        )
    graphs = automaton_source(source).automata(tags_of(batch))
    return without_weights(graphs) if tdp_scale == 0.0 else graphs.scale_weights(tdp_scale)


class FastBaumWelch(SequenceLoss):
    """Full sum over automata from an aligner."""

    class_name = "fast_bw"
    needs_time = True
    native = "`FastBaumWelchLoss`"
    options = (
        Option(
            "sprint_opts", REQUIRED, "an aligner", "pass `aligner=` to build_loss instead of an executable"
        ),
        Option(
            "tdp_scale", 1.0, "`tdp_scale=`", "0 also allows forbidden arcs; natively they stay forbidden"
        ),
    )
    notes = (
        "A sequence without a path has the loss 0 and the gradient softmax; natively it is named, or masked.",
        "There is no am_scale and no prior here; natively there are.",
    )
    needs_target = False

    def value(self, batch: Batch) -> torch.Tensor:
        logits = softmax_logits(batch, "fast_bw")
        lengths = batch.frames.lengths
        graphs = scaled_automata(self.settings.source, batch, float(self.option("tdp_scale")))
        scores = widened(logits.detach()).log_softmax(-1)
        found = baum_welch(scores, lengths, graphs)
        return error_signal_loss(
            logits, found.losses, lengths, error_signal=(scores.exp() - found.posteriors).to(logits.dtype)
        )
