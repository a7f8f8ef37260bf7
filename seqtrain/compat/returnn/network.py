"""The few layers of a RETURNN network that stand around losses: enough to run a case of the parity check."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from seqtrain.compat.returnn.base import Batch, LossResult, ReturnnLoss
from seqtrain.compat.returnn.expression import evaluate
from seqtrain.compat.returnn.fast_bw_layer import fast_bw_layer
from seqtrain.compat.returnn.layer_output import LayerOutput, activation_name
from seqtrain.compat.returnn.loss_layer import loss_layer
from seqtrain.compat.returnn.registry import build_loss
from seqtrain.errors import ConfigError
from seqtrain.losses.frames import Frames

__all__ = ["Network", "UnsupportedLayerError"]


class UnsupportedLayerError(ConfigError):
    """A layer of a class that isn't among these few."""


class Network:
    """Layers by name, computed when asked for.

    Args:
        layers: RETURNN's network dict.
        data: the data it is fed, by key ("data", "classes"), as layers.
        parameters: (weight (V, D), bias (V,)) of linear layers, by name.
        tags: names of the sequences.
        aligner: what `build_loss` takes.
        config: likewise.
        train: whether RETURNN would be training.
    """

    def __init__(
        self,
        layers: Mapping[str, Mapping[str, Any]],
        data: Mapping[str, LayerOutput],
        *,
        parameters: Mapping[str, tuple[torch.Tensor, torch.Tensor]] | None = None,
        tags: Sequence[str] | None = None,
        aligner: Any = None,
        config: Mapping[str, Any] | None = None,
        train: bool = True,
    ) -> None:
        self._layers = layers
        self._data = data
        self._parameters = parameters or {}
        self._tags = tags
        self._aligner = aligner
        self._config = config or {}
        self._train = train
        self._outputs: dict[str, LayerOutput] = {}

    def output(self, name: str) -> LayerOutput:
        """A layer's output, or the data of that name ("data", "data:key").

        Raises:
            UnsupportedLayerError, ConfigError.
        """
        key = name.partition(":")[2] if name.startswith("data:") else name
        if key in self._data:
            return self._data[key]
        if name not in self._outputs:
            if name not in self._layers:
                raise ConfigError(f"there is no layer {name!r}", key="from")
            layer = self._layers[name]
            kinds: dict[str, Callable[[str, Mapping[str, Any]], LayerOutput]] = {
                "activation": self._activation, "copy": self._copy, "linear": self._linear, "softmax": self._linear,
                "length": self._length, "eval": self._eval, "fast_bw": self._fast_bw, "loss": self._loss,
            }  # fmt: skip
            kind = layer.get("class")
            if kind not in kinds:
                raise UnsupportedLayerError(
                    f"layer {name!r} is of class {kind!r}; known are: {', '.join(sorted(kinds))}",
                    key=f"{name}.class",
                )
            self._outputs[name] = kinds[str(kind)](name, layer)
        return self._outputs[name]

    def build(self, name: str) -> ReturnnLoss:
        """The loss of a layer."""
        activation = self.output(name).activation
        return build_loss(
            self._layers[name], activation=activation, aligner=self._aligner, config=self._config
        )

    def run(self, name: str, loss: ReturnnLoss, *, reduce: bool = True) -> LossResult:
        """What a layer's loss computes."""
        targets = self._target(self._layers[name].get("target"), loss.needs_target)
        inner = getattr(loss, "inner", None)
        if targets is None and isinstance(inner, ReturnnLoss):
            targets = self._target(None, inner.needs_target)
        return loss.forward(
            self.output(name), None, *targets_of(targets), tags=self._tags, layers=_Lazy(self), train=self._train,
            reduce=reduce,
        )  # fmt: skip

    def batch(self, source: LayerOutput, targets: LayerOutput | None) -> Batch:
        """A batch of a layer's output, as a loss would see it."""
        lengths = source.lengths
        if lengths is None:
            raise ConfigError("the source has no time axis", key="from")
        frames = Frames(lengths, source.output.shape[1], False, source.output.device)
        return Batch(source, *targets_of(targets), self._tags, _Lazy(self), self._train, frames)

    def _target(self, name: Any, needed: bool) -> LayerOutput | None:
        if name is None and not needed:
            return None
        name = "classes" if name is None else str(name).removeprefix("layer:")
        return self.output(name)

    def _sources(self, layer: Mapping[str, Any]) -> list[LayerOutput]:
        given = layer.get("from", "data")
        return [self.output(name) for name in ([given] if isinstance(given, str) else given)]

    def _activation(self, name: str, layer: Mapping[str, Any]) -> LayerOutput:
        (source,) = self._sources(layer)
        activation = activation_name(dict(layer))
        return LayerOutput.of(source.output, source.lengths, activation=activation)

    def _copy(self, name: str, layer: Mapping[str, Any]) -> LayerOutput:
        (source,) = self._sources(layer)
        return (
            source if "copy_output_loss_from_source_idx" in layer else dataclasses.replace(source, loss=None)
        )

    def _linear(self, name: str, layer: Mapping[str, Any]) -> LayerOutput:
        (source,) = self._sources(layer)
        if name not in self._parameters:
            raise ConfigError(f"there are no parameters of layer {name!r}", key=name)
        weight, bias = self._parameters[name]
        logits = source.output @ weight.t() + bias
        output = LayerOutput.of(logits, source.lengths, activation=activation_name(dict(layer)))
        return dataclasses.replace(output, weights=(source.output, weight, bias))

    def _length(self, name: str, layer: Mapping[str, Any]) -> LayerOutput:
        (source,) = self._sources(layer)
        if source.lengths is None:
            raise ConfigError(f"layer {name!r}: its source has no time axis", key=f"{name}.from")
        return LayerOutput(source.lengths.float())

    def _eval(self, name: str, layer: Mapping[str, Any]) -> LayerOutput:
        sources = self._sources(layer)
        found = evaluate(str(layer.get("eval")), [source.output for source in sources])
        index = layer.get("copy_output_loss_from_source_idx")
        return LayerOutput(found, sources[0].lengths, loss=None if index is None else sources[index].loss)

    def _fast_bw(self, name: str, layer: Mapping[str, Any]) -> LayerOutput:
        (source,) = self._sources(layer)
        targets = self._target(layer.get("align_target_key"), layer.get("align_target") == "ctc")
        return fast_bw_layer(layer, self.batch(source, targets), aligner=self._aligner)

    def _loss(self, name: str, layer: Mapping[str, Any]) -> LayerOutput:
        (source,) = self._sources(layer)
        loss = build_loss(
            {key: value for key, value in layer.items() if key in ("class", "loss_", "loss_opts_")},
            activation=source.activation, aligner=self._aligner, config=self._config,
        )  # fmt: skip
        targets = targets_of(self._target(layer.get("target_"), loss.needs_target))
        return loss_layer(loss, source, *targets, use_error=bool(layer.get("use_error")), train=self._train)


class _Lazy(Mapping[str, LayerOutput]):
    """The outputs of a network's layers, computed when looked up."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def __getitem__(self, name: str) -> LayerOutput:
        try:
            return self._network.output(name)
        except ConfigError as error:
            raise KeyError(name) from error

    def __iter__(self) -> Any:
        return iter(self._network._layers)

    def __len__(self) -> int:
        return len(self._network._layers)


def targets_of(layer: LayerOutput | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Targets and their lengths, from the layer that they are."""
    return (None, None) if layer is None else (layer.output, layer.lengths)
