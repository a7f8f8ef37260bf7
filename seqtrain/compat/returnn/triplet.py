"""RETURNN's `triplet_loss`."""

from __future__ import annotations

import torch

from seqtrain.compat.returnn.base import Batch, SequenceLoss
from seqtrain.compat.returnn.options import REQUIRED, Option
from seqtrain.errors import DtypeError, ShapeError
from seqtrain.losses.triplet import pairwise_hinge

__all__ = ["Triplet"]


class Triplet(SequenceLoss):
    """Contrastive hinge over all ordered pairs of anchors, same and different examples."""

    class_name = "triplet_loss"
    native = "`triplet_loss`"
    options = (
        Option("margin", REQUIRED, "`margin=`"),
        Option("multi_view_training", False, "two calls of `triplet`", "c_anchor is unused"),
    )
    notes = (
        "Label 0 counts as the same as any other label, in one direction; natively it is a label like others.",
        "The norm factor is always 1 / (9 · B), twice that B with several views.",
    )

    def value(self, batch: Batch) -> torch.Tensor:
        views = 6 if self.option("multi_view_training") else 3
        output, labels = batch.layer.output, batch.required_targets()
        if output.dim() != 2 or output.shape[1] % views:
            raise ShapeError(
                f"the output must be (B, {views} E), got {tuple(output.shape)}", argument="layer"
            )
        if labels.is_floating_point():
            raise DtypeError(f"targets must be integer labels, got {labels.dtype}", argument="targets")
        if labels.shape != (output.shape[0], 3):
            raise ShapeError(
                f"targets must be ({output.shape[0]}, 3), labels of anchor, same and different, got "
                f"{tuple(labels.shape)}",
                argument="targets",
            )
        rows = batch.rows(output)
        anchor, same, different, *other = rows.chunk(views, dim=1)
        joined = labels.T.flatten()
        if not other:
            return self._hinge((anchor, same, different), joined)[None]
        _, other_same, other_different = other
        return (
            self._hinge((anchor, other_same, other_different), joined)
            + self._hinge((same, other_same, different), joined)
        )[None]

    def _hinge(self, parts: tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
        labels = labels.to(torch.int32)  # whose overflow for labels above 46340 is RETURNN's, too
        quirk = labels[None, :] ** 2 == labels[None, :] * labels[:, None]
        return pairwise_hinge(torch.cat(parts), quirk, margin=float(self.option("margin")))

    def error(self, batch: Batch) -> torch.Tensor | None:
        return None

    def norm_factor(self, batch: Batch) -> torch.Tensor:
        views = 2 if self.option("multi_view_training") else 1
        return torch.tensor(1.0 / (views * 9 * max(batch.layer.output.shape[0], 1)))
