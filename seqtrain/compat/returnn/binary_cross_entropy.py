"""RETURNN's `bin_ce`, alias `sse_sigmoid`."""

from __future__ import annotations

import torch

from seqtrain.compat.returnn.base import Batch, ReturnnLoss
from seqtrain.compat.returnn.options import Option
from seqtrain.losses.frames import widened

__all__ = ["BinaryCrossEntropy"]


class BinaryCrossEntropy(ReturnnLoss):
    """Binary cross-entropy of logits, the mean over features."""

    class_name = "bin_ce"
    native = "`binary_cross_entropy`"
    options = (Option("pos_weight", None, "`pos_weight=`"),)
    notes = ("The output counts as logits whatever the activation: a sigmoid layer gets a second sigmoid.",)
    before_softmax = False

    def _rows(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        rows = widened(batch.rows(batch.layer.output))
        targets = batch.frames.select(batch.required_targets(), "targets", *rows.shape[1:])
        batch.frames.check_finite(targets, "targets")
        return rows, targets.to(rows)

    @staticmethod
    def _features(rows: torch.Tensor) -> int:
        """F, 1 where the output has no feature axis."""
        return rows.shape[-1] if rows.dim() > 1 else 1

    def value(self, batch: Batch) -> torch.Tensor:
        rows, targets = self._rows(batch)
        weight = self.option("pos_weight")
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            rows,
            targets,
            pos_weight=None if weight is None else rows.new_tensor(float(weight)),
            reduction="none",
        )
        return losses / self._features(rows)

    def error(self, batch: Batch) -> torch.Tensor:
        rows, targets = self._rows(batch)
        return ((rows > 0) != (targets > 0.5)).to(torch.float32) / self._features(rows)
