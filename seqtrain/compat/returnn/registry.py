"""From a layer dict to its loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from seqtrain.compat.returnn.as_is import AsIs
from seqtrain.compat.returnn.base import ReturnnLoss, Settings
from seqtrain.compat.returnn.binary_cross_entropy import BinaryCrossEntropy
from seqtrain.compat.returnn.bleu import Bleu
from seqtrain.compat.returnn.cross_entropy import CrossEntropy
from seqtrain.compat.returnn.ctc import ConnectionistTemporalClassification
from seqtrain.compat.returnn.deep_clustering import DeepClustering
from seqtrain.compat.returnn.edit_distance import EditDistance
from seqtrain.compat.returnn.expected_loss import Expected
from seqtrain.compat.returnn.fast_bw import FastBaumWelch
from seqtrain.compat.returnn.generic_cross_entropy import GenericCrossEntropy
from seqtrain.compat.returnn.layer_output import activation_name
from seqtrain.compat.returnn.options import checked_options
from seqtrain.compat.returnn.regression import L1, MeanL1, MeanSquaredError
from seqtrain.compat.returnn.sampling import Sampling
from seqtrain.compat.returnn.sprint import Sprint
from seqtrain.compat.returnn.triplet import Triplet
from seqtrain.compat.returnn.via_layer import ViaLayer
from seqtrain.errors import ConfigError

__all__ = ["ALIASES", "CLASSES", "build_loss"]

CLASSES: dict[str, type[ReturnnLoss]] = {
    kind.class_name: kind
    for kind in (
        CrossEntropy, BinaryCrossEntropy, GenericCrossEntropy, MeanSquaredError, MeanL1, L1, AsIs,
        ConnectionistTemporalClassification, EditDistance, Bleu, Expected, DeepClustering, Sampling, Triplet, Sprint,
        FastBaumWelch, ViaLayer,
    )
}  # fmt: skip
"""The losses by RETURNN's names; the eighteenth, the layer of class "loss", wraps another."""

ALIASES = {"sse_sigmoid": "bin_ce"}


def _build(
    name: Any, options: Mapping[str, Any], settings: Settings, *, key: str = "loss_opts"
) -> ReturnnLoss:
    kind = CLASSES.get(ALIASES.get(name, name)) if isinstance(name, str) else None
    if kind is None:
        raise ConfigError(
            f"loss {name!r} is unknown; there are: {', '.join(sorted([*CLASSES, *ALIASES]))}", key="loss"
        )
    complete = checked_options(name, options, kind.options, key=key)
    return kind(dataclasses.replace(settings, options=complete, build=_build))


def _scaled(layer: Mapping[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options with `loss_scale`, the older word for their `scale`."""
    if "loss_scale" not in layer:
        return options
    scale = layer["loss_scale"]
    if options.get("scale", scale) != scale:
        raise ConfigError(
            f"loss_scale is {scale}, but loss_opts says scale {options['scale']}: give one of them",
            key="loss_scale",
        )
    return {**options, "scale": scale}


def build_loss(
    layer: Mapping[str, Any],
    *,
    activation: str | None = None,
    aligner: Any = None,
    config: Mapping[str, Any] | None = None,
) -> ReturnnLoss:
    """The loss that a RETURNN layer dict configures.

    Args:
        layer: `loss`, `loss_opts`, `loss_scale`, `activation`, `only_on_eval`; of a layer of class "loss" without a
            loss
            of its own: `loss_` and `loss_opts_`. Other keys are of no account here.
        activation: the layer's, where the dict doesn't say, as for a copy of a softmax layer.
        aligner: automata or error signals for names of sequences (an `AlignerClient`), for "sprint" and "fast_bw".
        config: settings of the whole setup: `behavior_version`, `tf_native_ctc_zero_infinity`.

    Raises:
        ConfigError: an unknown class, option or value; lists the valid ones.
    """
    of_layer = layer.get("class") == "loss" and layer.get("loss") is None
    name_key, options_key = ("loss_", "loss_opts_") if of_layer else ("loss", "loss_opts")
    if layer.get(name_key) is None:
        given = [key for key in ("loss_scale", "loss_opts") if key in layer]
        what = f"{' and '.join(given)} without a loss" if given else "the layer has no loss"
        raise ConfigError(f"{what}: the key {name_key!r} names one", key=name_key)
    options = layer.get(options_key) or {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"{options_key} must be a dict, got {options!r}", key=options_key)
    merged = {**options, "use_flatten_frames": False} if of_layer else _scaled(layer, dict(options))
    settings = Settings(
        options={},
        activation=activation if activation is not None else activation_name(dict(layer)),
        config=config or {},
        only_on_eval=bool(layer.get("only_on_eval", False)),
        source=aligner,
    )
    return _build(layer[name_key], merged, settings, key=options_key)
