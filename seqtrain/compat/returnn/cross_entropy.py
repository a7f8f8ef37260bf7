"""RETURNN's `ce`."""

from __future__ import annotations

import math

import torch

from seqtrain.compat.returnn.base import Batch, ReturnnLoss, Settings
from seqtrain.compat.returnn.gradient_of import with_gradient_of
from seqtrain.compat.returnn.layer_output import LayerOutput, safe_log
from seqtrain.compat.returnn.options import Option
from seqtrain.errors import ArgumentError, ConfigError
from seqtrain.losses.frames import widened

__all__ = ["CrossEntropy"]


class CrossEntropy(ReturnnLoss):
    """-log p(target), of probabilities or logits, sparse or dense targets."""

    class_name = "ce"
    native = "`cross_entropy`"
    options = (
        Option("input_type", "prob", "`input=`", "`prob` with a softmax activation means its logits"),
        Option("focal_loss_factor", 0.0, "`focal_factor=`"),
        Option(
            "label_smoothing",
            0.0,
            "`label_smoothing=`",
            "RETURNN subtracts the entropy (`subtract_entropy=True`)",
        ),
        Option(
            "label_smoothing_gaussian",
            False,
            "`gaussian_stddev=`",
            "RETURNN's standard deviation is 1 - label_smoothing, its weights don't sum to 1, and its gradient is "
            "softmax - q all the same; natively they do, and it is exact",
        ),
        Option("debug_dump", False, "", "accepted, prints nothing"),
        Option(
            "safe_log_opts",
            None,
            "`min_prob=`",
            "{eps, use_fake_grad}: natively the gradient is 0 where clipped",
        ),
        Option("use_fused", True, "`input=`", "off: the probabilities are clipped at 1e-20"),
        Option("fake_upper_bound", None, "`upper_bound=`", "natively the gradient is 0 above it"),
    )
    notes = (
        "Any activation but softmax is taken for probabilities, log_softmax too: natively say `input=`.",
        "Dense targets that don't sum to 1: the gradient is softmax - t; natively it is exact, Σt · softmax - t.",
        "A probability of exactly 0 costs 46.05 and has the gradient -1e20; natively it costs inf, or log min_prob.",
    )

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        given = self.option("safe_log_opts") or {}
        unknown = [name for name in given if name not in ("eps", "use_fake_grad")]
        if unknown:
            raise ConfigError(
                f"safe_log_opts has no {unknown[0]!r}; valid are: eps, use_fake_grad",
                key=f"loss_opts.safe_log_opts.{unknown[0]}",
            )
        if self.option("input_type") not in ("prob", "logits"):
            raise ConfigError(
                f"input_type must be 'prob' or 'logits', got {self.option('input_type')!r}",
                key="loss_opts.input_type",
            )

    def uses_logits(self, layer: LayerOutput) -> bool:
        return self.option("input_type") == "logits" or super().uses_logits(layer)

    def scores(self, layer: LayerOutput) -> torch.Tensor:
        return layer.output if self.option("input_type") == "logits" else super().scores(layer)

    def value(self, batch: Batch) -> torch.Tensor:
        return self._dense(batch) if batch.dense else self._sparse(batch)

    def _safe_log(self, probabilities: torch.Tensor) -> torch.Tensor:
        return safe_log(probabilities, **(self.option("safe_log_opts") or {}))

    def _smoothed(
        self, labels: torch.Tensor, num_labels: int, like: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """q (N, V) and the entropy that is subtracted."""
        smoothing = float(self.option("label_smoothing"))
        if not 0.0 < smoothing < 1.0 or num_labels < 2:
            raise ArgumentError(
                f"label_smoothing must lie in [0, 1), for two labels or more; got {smoothing} and {num_labels} labels",
                argument="label_smoothing",
            )
        confidence, low = 1.0 - smoothing, smoothing / (num_labels - 1)
        if self.option("label_smoothing_gaussian"):
            distance = torch.arange(num_labels, device=like.device) - labels[:, None].to(like.dtype)
            scale = 1.0 / (confidence * math.sqrt(2.0 * math.pi))
            q = scale * torch.exp(-0.5 * (distance / confidence) ** 2)
        else:
            q = torch.full_like(like, low).scatter_(1, labels[:, None], confidence)
        entropy = -(confidence * math.log(confidence) + (num_labels - 1) * low * math.log(low + 1e-20))
        return q, entropy

    def _sparse(self, batch: Batch) -> torch.Tensor:
        rows = widened(batch.rows(self.scores(batch.layer)))
        num_labels = rows.shape[-1]
        labels = batch.labels(num_labels)
        logits = self.uses_logits(batch.layer)
        fused = logits and bool(self.option("use_fused"))
        probabilities = rows.softmax(-1) if logits else rows
        of_target = probabilities.gather(1, labels[:, None])[:, 0]
        if self.option("label_smoothing"):
            q, entropy = self._smoothed(labels, num_labels, rows)
            if fused:
                total = rows.logsumexp(-1)
                losses = with_gradient_of(
                    (q * (total[:, None] - rows)).sum(-1) - entropy, total - (q * rows).sum(-1)
                )
            else:
                losses = -(q * safe_log(probabilities)).sum(-1) - entropy
        elif fused:
            losses = torch.nn.functional.cross_entropy(rows, labels, reduction="none")
        else:
            losses = -self._safe_log(of_target)
        if self.option("focal_loss_factor"):
            losses = losses * (1.0 - of_target) ** float(self.option("focal_loss_factor"))
        return self._bounded(losses)

    def _dense(self, batch: Batch) -> torch.Tensor:
        for name in ("focal_loss_factor", "label_smoothing", "debug_dump"):
            if self.option(name):
                raise ArgumentError(f"{name} needs sparse targets; these are dense", argument=name)
        rows = widened(batch.rows(self.scores(batch.layer)))
        targets = widened(batch.dense_rows(rows.shape[-1]))
        logits = self.uses_logits(batch.layer)
        if logits and self.option("use_fused"):
            total = rows.logsumexp(-1)
            losses = (targets * (total[:, None] - rows)).sum(-1)
            return self._bounded(with_gradient_of(losses, total - (targets * rows).sum(-1)))
        # The bound is of the negative elements, as there: it changes nothing that isn't negative itself.
        return -self._bounded(targets * self._safe_log(rows.softmax(-1) if logits else rows))

    def _bounded(self, losses: torch.Tensor) -> torch.Tensor:
        bound = self.option("fake_upper_bound")
        return losses if bound is None else with_gradient_of(losses.clamp(max=float(bound)), losses)
