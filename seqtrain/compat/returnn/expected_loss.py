"""RETURNN's `expected_loss`."""

from __future__ import annotations

import dataclasses

import torch

from seqtrain.compat.returnn.base import Batch, SequenceLoss, Settings
from seqtrain.compat.returnn.options import REQUIRED, Option
from seqtrain.errors import ArgumentError, ConfigError, ShapeError
from seqtrain.losses.expected_loss import expected_loss
from seqtrain.losses.frames import widened

__all__ = ["Expected"]


class Expected(SequenceLoss):
    """Expectation of another loss's value or error over a beam's hypotheses."""

    class_name = "expected_loss"
    same_batch = False
    needs_target = False  # the loss within says whether it does
    native = "`expected_loss`"
    options = (
        Option("loss", REQUIRED, "`losses`", "{'class': name, …its options}"),
        Option("loss_kind", REQUIRED, "", "'error' or 'value'"),
        Option("norm_scores", True, "`normalize_scores=`"),
        Option(
            "norm_scores_stop_gradient",
            True,
            "`stop_gradient_of_norm=`",
            "natively False: the exact gradient",
        ),
        Option("divide_beam_size", True, "`divide_by_hypotheses=`", "natively False"),
        Option("subtract_average_loss", True, "`subtract_mean_loss=`", "natively False"),
        Option("loss_correction_grad_only", False, "`correction_in_gradient_only=`"),
    )

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        kind = self.option("loss_kind")
        if kind not in ("error", "value"):
            raise ConfigError(
                f"loss_kind must be 'error' or 'value', got {kind!r}", key="loss_opts.loss_kind"
            )
        inner = self.option("loss")
        if not isinstance(inner, dict) or "class" not in inner:
            raise ConfigError(
                f"loss must be a dict with the key 'class', got {inner!r}", key="loss_opts.loss"
            )
        options = {name: value for name, value in inner.items() if name != "class"}
        if settings.build is None:
            raise ConfigError("expected_loss is made by build_loss alone", key="loss")
        self.inner = settings.build(inner["class"], options, settings)

    def _beam(self, batch: Batch) -> tuple[torch.Tensor, int]:
        scores = batch.layer.beam_scores
        if scores is None:
            raise ArgumentError(
                "expected_loss needs a layer of hypotheses with their scores: LayerOutput(…, beam_scores=(B, K))",
                argument="layer",
            )
        if scores.dim() != 2 or scores.numel() != batch.layer.output.shape[0]:
            raise ShapeError(
                f"beam_scores must be (B, K), of {batch.layer.output.shape[0]} hypotheses in all, got "
                f"{tuple(scores.shape)}",
                argument="beam_scores",
            )
        return scores, scores.shape[1]

    def value(self, batch: Batch) -> torch.Tensor:
        scores, beam = self._beam(batch)
        layer = dataclasses.replace(batch.layer, beam_scores=None)
        targets = lengths = None
        if batch.targets is not None:
            targets = batch.targets.repeat_interleave(beam, dim=0)
            lengths = None if batch.target_lengths is None else batch.target_lengths.repeat_interleave(beam)
        result = self.inner(
            layer,
            None,
            targets,
            lengths,
            tags=None if batch.tags is None else [tag for tag in batch.tags for _ in range(beam)],
            layers=batch.layers,
            train=batch.train,
            reduce=False,
        )
        losses = result.error if self.option("loss_kind") == "error" else result.value
        if losses is None or losses.numel() != scores.numel():
            raise ConfigError(
                f"loss {self.inner.class_name!r} has no {self.option('loss_kind')} for each of {scores.numel()} "
                f"hypotheses",
                key="loss_opts.loss",
            )
        return expected_loss(
            widened(scores),
            losses.reshape(scores.shape).to(widened(scores).dtype),
            normalize_scores=bool(self.option("norm_scores")),
            stop_gradient_of_norm=bool(self.option("norm_scores_stop_gradient")),
            divide_by_hypotheses=bool(self.option("divide_beam_size")),
            subtract_mean_loss=bool(self.option("subtract_average_loss")),
            correction_in_gradient_only=bool(self.option("loss_correction_grad_only")),
        )

    def error(self, batch: Batch) -> torch.Tensor | None:
        return None

    def norm_factor(self, batch: Batch) -> torch.Tensor:
        factor = super().norm_factor(batch)
        given = self.option("custom_norm_factor") or self.option("custom_inv_norm_factor")
        # The target is tiled over the beam before its labels are counted.
        tiled = not given and batch.layer.lengths is not None and batch.target_lengths is not None
        return factor / self._beam(batch)[1] if tiled else factor
