"""RETURNN's `mse`, `mean_l1` and `l1`: of a layer's output, never of logits."""

from __future__ import annotations

import torch

from seqtrain.compat.returnn.base import Batch, ReturnnLoss
from seqtrain.losses.mean_l1 import mean_l1
from seqtrain.losses.mse import mse

__all__ = ["L1", "MeanL1", "MeanSquaredError"]


class MeanSquaredError(ReturnnLoss):
    """Mean over features of the squared difference; sparse targets count as one-hot."""

    class_name = "mse"
    native = "`mse`"
    before_softmax = False

    def value(self, batch: Batch) -> torch.Tensor:
        packed = batch.packed(batch.layer.output)
        targets = (
            batch.dense_rows(packed.values.shape[-1])
            if batch.dense
            else batch.labels(packed.values.shape[-1])
        )
        return mse(packed, targets, reduction="per_frame")


class MeanL1(ReturnnLoss):
    """Mean over features of the absolute difference."""

    class_name = "mean_l1"
    native = "`mean_l1`"
    before_softmax = False

    def value(self, batch: Batch) -> torch.Tensor:
        packed = batch.packed(batch.layer.output)
        return mean_l1(packed, batch.dense_rows(packed.values.shape[-1]), reduction="per_frame")


class L1(ReturnnLoss):
    """Sum over features of the absolute difference."""

    class_name = "l1"
    native = "`l1`"
    before_softmax = False

    def value(self, batch: Batch) -> torch.Tensor:
        packed = batch.packed(batch.layer.output)
        targets = batch.dense_rows(packed.values.shape[-1])
        # Element by element: unreduced it has the features, which a loss layer can't take.
        return (packed.values - targets).abs()
