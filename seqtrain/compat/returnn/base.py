"""What RETURNN's losses have in common: reduction, norm factor, objective, the frame error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch

from seqtrain.compat.returnn.layer_output import LayerOutput
from seqtrain.compat.returnn.options import Option
from seqtrain.errors import ArgumentError, ConfigError, DtypeError, ShapeError
from seqtrain.losses.frames import Frames, widened
from seqtrain.scores import Packed, host_integers

__all__ = ["Batch", "LossResult", "ReturnnLoss", "SequenceLoss", "Settings"]


class LossResult(NamedTuple):
    """What RETURNN computes of a loss.

    Attributes:
        value: sum over the batch's frames or sequences, never a mean; None for a loss without (edit distance, …).
            Unreduced: (N,) packed frames, (B · T,) with use_flatten_frames off, or (B,) for a sequence loss.
        error: likewise, None for a loss without.
        norm_factor: scalar; value · norm_factor and error · norm_factor are what RETURNN reports.
        objective: value · scale (· norm_factor with use_normalized_loss), what is minimized; None for scale 0 or
            without a value.
    """

    value: torch.Tensor | None
    error: torch.Tensor | None
    norm_factor: torch.Tensor
    objective: torch.Tensor | None


@dataclass(frozen=True)
class Batch:
    """One batch as a loss sees it.

    Attributes:
        layer: the layer's output.
        targets: (B, T) or (B, U) int, (B, T, F) float, or without a time axis (B,) or (B, F); None without a target.
        target_lengths: (B,) int64 where the targets have a time axis.
        tags: names of the sequences.
        layers: other layers' outputs by name.
        train: whether RETURNN would be training.
        frames: which frames count.
    """

    layer: LayerOutput
    targets: torch.Tensor | None
    target_lengths: torch.Tensor | None
    tags: Sequence[str] | None
    layers: Mapping[str, LayerOutput]
    train: bool
    frames: Frames

    def rows(self, tensor: torch.Tensor, argument: str = "layer output") -> torch.Tensor:
        """(N, …): the frames that count; without a time axis the tensor as it is. NaN and +inf are refused."""
        selected = self.frames.select(tensor, argument, *tensor.shape[1 if self.frames.packed else 2 :])
        if selected.is_floating_point():
            self.frames.check_finite(selected, argument, minus_inf=True)
        return selected

    def packed(self, tensor: torch.Tensor, argument: str = "layer output") -> Packed:
        """The frames that count as packed scores, for a criterion's function."""
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), self.frames.lengths.cumsum(0)])
        return Packed(widened(self.rows(tensor, argument)), offsets)

    def required_targets(self) -> torch.Tensor:
        """The targets.

        Raises:
            ArgumentError: there are none.
        """
        if self.targets is None:
            raise ArgumentError("this loss needs targets", argument="targets")
        return self.targets

    def labels(self, num_labels: int) -> torch.Tensor:
        """(N,) labels of the frames that count, from sparse targets."""
        return self.frames.select_labels(self.required_targets(), "targets", num_labels)

    @property
    def dense(self) -> bool:
        """Whether the targets are distributions or values instead of labels."""
        return self.required_targets().is_floating_point()

    def dense_rows(self, num_features: int) -> torch.Tensor:
        """(N, F) of dense targets."""
        targets = self.required_targets()
        if not targets.is_floating_point():
            raise DtypeError(
                f"targets must be dense (floating-point), got {targets.dtype}", argument="targets"
            )
        rows = self.frames.select(targets, "targets", num_features)
        self.frames.check_finite(rows, "targets")
        return rows

    def sequence_targets(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, U) labels and their lengths (B,)."""
        targets = self.required_targets()
        if targets.is_floating_point():
            raise DtypeError(f"targets must be integer labels, got {targets.dtype}", argument="targets")
        if self.target_lengths is None or targets.dim() != 2:
            raise ShapeError(
                f"targets must be (B, U) with target_lengths, got shape {tuple(targets.shape)}",
                argument="targets",
            )
        return targets, self.target_lengths


@dataclass(frozen=True)
class Settings:
    """What a layer dict says about its loss.

    Attributes:
        options: of the class and those that all have, complete.
        activation: of the layer.
        config: of the whole setup, such as `behavior_version`.
        only_on_eval: value and error are 0 while training.
        source: automata or error signals for names of sequences.
        build: makes the loss within a loss: of a class name, its options, and these settings.
    """

    options: Mapping[str, Any]
    activation: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    only_on_eval: bool = False
    source: Any = None
    build: Callable[[str, Mapping[str, Any], Settings], ReturnnLoss] | None = None


class ReturnnLoss(torch.nn.Module, ABC):
    """A loss as RETURNN computes it. Made by `build_loss`; called with a batch, returns a `LossResult`."""

    class_name: ClassVar[str]
    options: ClassVar[tuple[Option, ...]] = ()
    native: ClassVar[str]
    notes: ClassVar[tuple[str, ...]] = ()
    needs_target: ClassVar[bool] = True
    framewise: ClassVar[bool] = True
    before_softmax: ClassVar[bool] = True
    needs_time: ClassVar[bool] = False
    same_batch: ClassVar[bool] = True

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        custom = self.option("custom_norm_factor")
        if custom is not None and not isinstance(custom, float) and not callable(custom):
            raise ConfigError(
                f"custom_norm_factor must be a float or a function, got {custom!r}",
                key="loss_opts.custom_norm_factor",
            )
        if custom is not None and self.option("custom_inv_norm_factor") is not None:
            raise ConfigError(
                "custom_norm_factor and custom_inv_norm_factor exclude each other",
                key="loss_opts.custom_norm_factor",
            )

    def option(self, name: str) -> Any:
        """An option's value."""
        return self.settings.options[name]

    def uses_logits(self, layer: LayerOutput) -> bool:
        """Whether the input of the layer's softmax is used instead of its output."""
        given = self.option("_check_output_before_softmax")
        wanted = self.before_softmax if given is None else bool(given)
        return wanted and layer.activation == "softmax" and layer.before_activation is not None

    def scores(self, layer: LayerOutput) -> torch.Tensor:
        """The logits where they are used, else the output."""
        if self.uses_logits(layer) and layer.before_activation is not None:
            return layer.before_activation
        return layer.output

    @abstractmethod
    def value(self, batch: Batch) -> torch.Tensor | None:
        """The value of each frame, (N,) or (N, F), or of each sequence, (B,)."""

    def error(self, batch: Batch) -> torch.Tensor | None:
        """The errors likewise: by default, 1 for each frame whose best label isn't the target."""
        if batch.targets is None:
            return None
        scores = batch.rows(self.scores(batch.layer))
        labels = (
            batch.dense_rows(scores.shape[-1]).argmax(-1) if batch.dense else batch.labels(scores.shape[-1])
        )
        return (scores.argmax(-1) != labels).to(torch.float32)

    def norm_factor(self, batch: Batch) -> torch.Tensor:
        """1 / the number of target labels; without targets of output frames; without a time axis of sequences."""
        custom: float | Callable[..., Any] | None = self.option("custom_norm_factor")
        if callable(custom):
            return torch.as_tensor(custom(self=self, output=batch.layer.output, layer=batch.layer))
        if custom is not None:
            return torch.tensor(custom)
        inverse = self.option("custom_inv_norm_factor")
        if inverse is not None:
            return 1.0 / self.other_layer(batch, inverse, "custom_inv_norm_factor").output.float().sum()
        if batch.layer.lengths is None:
            output = batch.layer.output
            return torch.tensor(1.0 / max(output.shape[0], 1) if output.dim() else 1.0)
        counted = batch.layer.lengths if batch.target_lengths is None else batch.target_lengths
        return 1.0 / counted.sum().float()

    def other_layer(self, batch: Batch, name: str, option: str) -> LayerOutput:
        """The output of the layer that an option names.

        Raises:
            ConfigError: it wasn't passed in `layers`; lists those that were.
        """
        if name not in batch.layers:
            raise ConfigError(
                f"{option} names the layer {name!r}; the layers passed are: "
                f"{', '.join(sorted(batch.layers)) or 'none'}",
                key=f"loss_opts.{option}",
            )
        return batch.layers[name]

    def forward(
        self,
        layer: torch.Tensor | LayerOutput,
        lengths: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
        target_lengths: torch.Tensor | None = None,
        *,
        tags: Sequence[str] | None = None,
        layers: Mapping[str, LayerOutput] | None = None,
        train: bool = True,
        reduce: bool = True,
    ) -> LossResult:
        """Value, error, norm factor and objective of a batch.

        Args:
            layer: what goes into the layer's activation (its output where it has none), batch first: (B, T, V), or
                (B, V) or (B,) without a time axis; or a `LayerOutput`.
            lengths: (B,) int frames; None: no time axis.
            targets: (B, T) or (B, U) int labels, or (B, T, F) float; without a time axis (B,), (B, F).
            target_lengths: (B,) int; None: the lengths, where the targets have a time axis.
            tags: names of the sequences, for losses that ask an aligner.
            layers: outputs of the layers that options name.
            train: False in evaluation.
            reduce: False: RETURNN's `reduce_func=identity`.

        Raises:
            ArgumentError and its kin for bad input; ConfigError for a layer that wasn't passed.
        """
        if isinstance(layer, torch.Tensor):
            layer = LayerOutput.of(layer, lengths, activation=self.settings.activation)
        elif not isinstance(layer, LayerOutput):
            raise ArgumentError(
                f"layer must be a torch.Tensor or a LayerOutput, got {type(layer).__name__}", argument="layer"
            )
        elif lengths is not None:
            raise ArgumentError("a LayerOutput brings its own lengths: leave lengths out", argument="lengths")
        if self.needs_time and layer.lengths is None:
            raise ArgumentError(
                f"loss {self.class_name!r} needs a time axis: pass the lengths of the sequences",
                argument="lengths",
            )
        batch = self._batch(layer, targets, target_lengths, tags, layers or {}, train, reduce)
        if self.settings.only_on_eval and train:
            nothing = torch.zeros((), device=layer.output.device)
            return LossResult(nothing, nothing, self.norm_factor(batch), None)
        value, error = self.value(batch), self.error(batch)
        if reduce:
            value, error = (part if part is None else part.sum() for part in (value, error))
        norm_factor = self.norm_factor(batch)
        scale = float(self.option("scale"))
        objective = None
        if value is not None and scale != 0.0:
            objective = value if scale == 1.0 else value * scale
            if self.option("use_normalized_loss"):
                objective = objective * norm_factor.to(objective.device)
        return LossResult(value, error, norm_factor, objective)

    def _batch(
        self,
        layer: LayerOutput,
        targets: torch.Tensor | None,
        target_lengths: torch.Tensor | None,
        tags: Sequence[str] | None,
        layers: Mapping[str, LayerOutput],
        train: bool,
        reduce: bool,
    ) -> Batch:
        if self.needs_target and targets is None:
            raise ArgumentError(f"loss {self.class_name!r} needs targets", argument="targets")
        count = layer.output.shape[0] if layer.output.dim() else 1
        if layer.lengths is None:
            # Without a time axis each sequence is one row.
            frames = Frames(torch.ones(count, dtype=torch.int64), 1, True, layer.output.device)
        else:
            whole = self.framewise and not reduce and not self.option("use_flatten_frames")
            limit = layer.output.shape[1]
            counted = torch.full_like(layer.lengths, limit) if whole else layer.lengths
            frames = Frames(counted, limit, False, layer.output.device)
        if targets is not None and layer.lengths is not None:
            if not isinstance(targets, torch.Tensor) or targets.dim() < 1:
                raise ShapeError(f"targets must be a tensor (B, …), got {targets!r:.80}", argument="targets")
            if target_lengths is None and not self.framewise:
                raise ArgumentError(
                    f"loss {self.class_name!r} needs target_lengths beside its targets",
                    argument="target_lengths",
                )
            target_lengths = layer.lengths if target_lengths is None else target_lengths
            target_lengths = host_integers(target_lengths, "target_lengths", (None,)).long()
            if target_lengths.shape[0] != targets.shape[0]:
                raise ShapeError(
                    f"target_lengths must have shape ({targets.shape[0]},), one a sequence of the targets, got "
                    f"{tuple(target_lengths.shape)}",
                    argument="target_lengths",
                )
            width = targets.shape[1] if targets.dim() > 1 else 0
            bad = ((target_lengths < 0) | (target_lengths > width)).nonzero()
            if not self.framewise and bad.numel():
                b = int(bad[0])
                raise ShapeError(
                    f"target_lengths[{b}] = {int(target_lengths[b])} must lie in 0 … {width} (U)",
                    argument="target_lengths",
                )
            if self.same_batch and targets.shape[0] != count:
                raise ShapeError(
                    f"targets are of {targets.shape[0]} sequences, the layer's output of {count}",
                    argument="targets",
                )
            if self.framewise and not torch.equal(target_lengths, layer.lengths):
                b = int((target_lengths != layer.lengths).nonzero()[0])
                raise ShapeError(
                    f"target_lengths[{b}] = {int(target_lengths[b])}, but lengths[{b}] = {int(layer.lengths[b])}: loss "
                    f"{self.class_name!r} compares frame by frame",
                    argument="target_lengths",
                )
        return Batch(layer, targets, target_lengths, tags, layers, train, frames)


class SequenceLoss(ReturnnLoss):
    """A loss that gives one number a sequence."""

    framewise = False
