"""RETURNN's layer `fast_bw`: posteriors of a full sum, for `via_layer` to train against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from seqtrain.compat.returnn.automata import staircase
from seqtrain.compat.returnn.base import Batch
from seqtrain.compat.returnn.fast_bw import scaled_automata
from seqtrain.compat.returnn.full_sum import baum_welch
from seqtrain.compat.returnn.layer_output import LayerOutput
from seqtrain.compat.returnn.options import REQUIRED, Option
from seqtrain.errors import ConfigError
from seqtrain.fsa import FsaBatch
from seqtrain.losses.ctc import ctc_automata
from seqtrain.losses.frames import widened
from seqtrain.losses.sources import AutomatonSource

__all__ = ["FAST_BW_LAYER_KEYS", "fast_bw_layer"]

FAST_BW_LAYER_KEYS = (
    Option("align_target", REQUIRED, "`automata`, `topology=`", "ctc, sprint or staircase"),
    Option("align_target_key", None, "`targets`"),
    Option("input_type", "log_prob", "log-probabilities"),
    Option("ctc_opts", None, "`seqtrain.fsa.ctc`, `rna`", "blank_idx, label_loop (ctc_merge_repeated)"),
    Option("sprint_opts", None, "an aligner", "pass `aligner=`"),
    Option(
        "tdp_scale", 1.0, "`tdp_scale=`", "of automata from an aligner alone; 0 also allows forbidden arcs"
    ),
    Option(
        "am_scale",
        1.0,
        "`am_scale=`",
        "`via_layer`'s signal isn't scaled by it; natively the gradient is exact",
    ),
    Option("min_prob", 0.0, "`min_prob=`", "natively the gradient is 0 below it"),
    Option("staircase_seq_len_source", None, "", "the layer whose lengths are climbed"),
)
"""Keys of the layer."""

_TARGETS = ("ctc", "sprint", "staircase")
_INPUTS = ("log_prob", "prob")
_CTC_OPTIONS = ("blank_idx", "label_loop", "ctc_merge_repeated")


def fast_bw_layer(
    options: Mapping[str, Any], batch: Batch, *, aligner: AutomatonSource | None = None
) -> LayerOutput:
    """The layer's output: posteriors (B, T, V), 0 past the end, with `loss` (B,) the full sum's -log.

    Args:
        options: the layer dict: align_target ("ctc", "sprint" or "staircase"), input_type, tdp_scale, am_scale,
            min_prob, ctc_opts; others are of no account here.
        batch: the source layer, with targets for "ctc" and tags for "sprint".
        aligner: where automata for "sprint" come from.

    A sequence without a path has the loss 0 and no posteriors. Natively: `FastBaumWelchLoss` with am_scale, tdp_scale,
    min_prob, and its exact gradient; the idiom's signal y - z isn't scaled by am_scale.

    Raises:
        ConfigError: an option has a value that there isn't.
    """
    target, kind = options.get("align_target"), options.get("input_type", "log_prob")
    if target not in _TARGETS:
        raise ConfigError(
            f"align_target must be one of {', '.join(_TARGETS)}, got {target!r}", key="align_target"
        )
    if kind not in _INPUTS:
        raise ConfigError(f"input_type must be one of {', '.join(_INPUTS)}, got {kind!r}", key="input_type")
    layer, lengths = batch.layer, batch.frames.lengths
    scores = widened((layer.output if kind == "log_prob" else layer.log_output()).detach())
    min_prob, am_scale = float(options.get("min_prob", 0.0)), float(options.get("am_scale", 1.0))
    if min_prob > 0.0:
        scores = scores.clamp(min=math.log(min_prob))
    if am_scale != 1.0:
        scores = scores * am_scale
    found = baum_welch(scores, lengths, _automata(str(target), options, batch, scores.shape[-1], aligner))
    return LayerOutput(found.posteriors, lengths, loss=found.losses)


def _automata(
    target: str, options: Mapping[str, Any], batch: Batch, num_labels: int, aligner: AutomatonSource | None
) -> FsaBatch:
    if target == "sprint":
        return scaled_automata(aligner, batch, float(options.get("tdp_scale", 1.0)))
    if target == "staircase":
        source = options.get("staircase_seq_len_source")
        if source is None or source not in batch.layers:
            return staircase(batch.frames.lengths)
        climbed = batch.layers[str(source)].lengths
        if climbed is None:
            raise ConfigError(f"layer {source!r} has no time axis", key="staircase_seq_len_source")
        return staircase(climbed)
    ctc_opts = dict(options.get("ctc_opts") or {})
    for name in ctc_opts:
        if name not in _CTC_OPTIONS:
            raise ConfigError(
                f"ctc_opts has no {name!r}; valid are: {', '.join(_CTC_OPTIONS)}", key=f"ctc_opts.{name}"
            )
    if "label_loop" in ctc_opts and "ctc_merge_repeated" in ctc_opts:
        raise ConfigError(
            "ctc_opts: label_loop and ctc_merge_repeated are the same; pass one", key="ctc_opts.label_loop"
        )
    loop = bool(ctc_opts.get("label_loop", ctc_opts.get("ctc_merge_repeated", True)))
    targets, target_lengths = batch.sequence_targets()
    blank = int(ctc_opts.get("blank_idx", num_labels - 1))
    return ctc_automata(num_labels, targets, target_lengths, blank=blank, label_loop=loop, tags=batch.tags)
