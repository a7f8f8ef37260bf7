"""RETURNN's `as_is`."""

from __future__ import annotations

import torch

from seqtrain.compat.returnn.base import Batch, ReturnnLoss
from seqtrain.compat.returnn.options import Option

__all__ = ["AsIs"]


class AsIs(ReturnnLoss):
    """The output is the loss."""

    class_name = "as_is"
    native = "`as_is`"
    options = (Option("as_error", False, "", "it is an error, and there is no value"),)
    needs_target = False
    before_softmax = False

    def _values(self, batch: Batch) -> torch.Tensor:
        output = batch.layer.output.to(torch.float32)
        return output if not output.dim() else batch.rows(output)

    def value(self, batch: Batch) -> torch.Tensor | None:
        return None if self.option("as_error") else self._values(batch)

    def error(self, batch: Batch) -> torch.Tensor | None:
        return self._values(batch) if self.option("as_error") else None
