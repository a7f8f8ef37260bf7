"""RETURNN's `mse`, `mean_l1` and `l1`: of a layer's output, never of logits."""

from __future__ import annotations

import torch

from seqtrain.compat.returnn.base import Batch, ReturnnLoss
from seqtrain.losses.frames import widened
from seqtrain.losses.l1 import l1
from seqtrain.losses.mean_l1 import mean_l1
from seqtrain.losses.mse import mse
from seqtrain.scores import Packed

__all__ = ["L1", "MeanL1", "MeanSquaredError"]


def _packed(rows: torch.Tensor) -> Packed:
    return Packed(rows, torch.tensor([0, rows.shape[0]]))


class MeanSquaredError(ReturnnLoss):
    """Mean over features of the squared difference; sparse targets count as one-hot."""

    class_name = "mse"
    native = "`mse`"
    before_softmax = False

    def value(self, batch: Batch) -> torch.Tensor:
        rows = widened(batch.rows(batch.layer.output))
        targets = batch.dense_rows(rows.shape[-1]) if batch.dense else batch.labels(rows.shape[-1])
        return mse(_packed(rows), targets, reduction="per_frame")


class MeanL1(ReturnnLoss):
    """Mean over features of the absolute difference."""

    class_name = "mean_l1"
    native = "`mean_l1`"
    before_softmax = False

    def value(self, batch: Batch) -> torch.Tensor:
        rows = widened(batch.rows(batch.layer.output))
        return mean_l1(_packed(rows), batch.dense_rows(rows.shape[-1]), reduction="per_frame")


class L1(ReturnnLoss):
    """Sum over features of the absolute difference."""

    class_name = "l1"
    native = "`l1`"
    before_softmax = False

    def value(self, batch: Batch) -> torch.Tensor:
        rows = widened(batch.rows(batch.layer.output))
        return l1(_packed(rows), batch.dense_rows(rows.shape[-1]), reduction="per_frame")
