"""A criterion as a layer: the loss, or the error, of each frame, for networks that compute on with it."""

from __future__ import annotations

import copy

import torch

from seqtrain.errors import ArgumentError
from seqtrain.losses.as_is import AsIsLoss
from seqtrain.losses.binary_cross_entropy import BinaryCrossEntropyLoss
from seqtrain.losses.cross_entropy import CrossEntropyLoss
from seqtrain.losses.frame_errors import frame_errors
from seqtrain.losses.generic_cross_entropy import GenericCrossEntropyLoss
from seqtrain.losses.l1 import L1Loss
from seqtrain.losses.mean_l1 import MeanL1Loss
from seqtrain.losses.mse import MSELoss
from seqtrain.scores import Scores

__all__ = ["LossLayer"]

_CRITERIA = (
    AsIsLoss,
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    GenericCrossEntropyLoss,
    L1Loss,
    MSELoss,
    MeanL1Loss,
)
_RESULTS = ("value", "error")


class LossLayer(torch.nn.Module):
    """What a criterion says of each frame.

    Called with (scores, targets, lengths=None) as the criterion is, of an `AsIsLoss` with (values,
    lengths=None), by name. Returns (B, T), zero past an utterance's end, of packed scores (ΣT,); float32, float64 for
    float64.

    Args:
        criterion: a criterion that is a sum over frames: `CrossEntropyLoss`, `BinaryCrossEntropyLoss`,
            `GenericCrossEntropyLoss`, `MSELoss`, `MeanL1Loss`, `L1Loss` or `AsIsLoss`. Its reduction doesn't matter.
        of: "value", the loss, differentiable; or "error", 1 where the best label of the scores isn't the target's, else
            0, as in `frame_errors`.

    Raises:
        ArgumentError: another criterion; the error of an `AsIsLoss`, which has no targets. When called: as the
        criterion, and ArgumentError for targets missing, or given for an `AsIsLoss`.
    """

    def __init__(self, criterion: torch.nn.Module, *, of: str = "value") -> None:
        super().__init__()
        if not isinstance(criterion, _CRITERIA):
            raise ArgumentError(
                f"criterion must be one of {', '.join(kind.__name__ for kind in _CRITERIA)}, which are sums over "
                f"frames, got {type(criterion).__name__}",
                argument="criterion",
            )
        if of not in _RESULTS:
            raise ArgumentError(
                f"of must be one of {', '.join(map(repr, _RESULTS))}, got {of!r}", argument="of"
            )
        if of == "error" and isinstance(criterion, AsIsLoss):
            raise ArgumentError(
                "of='error' compares scores with targets, and an AsIsLoss has none: use of='value'",
                argument="of",
            )
        self.criterion = copy.copy(criterion)
        self.criterion.reduction = "per_frame"
        self.of = of

    def forward(
        self, scores: Scores, targets: torch.Tensor | None = None, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        takes_targets = not isinstance(self.criterion, AsIsLoss)
        if takes_targets != (targets is not None):
            raise ArgumentError(
                f"a {type(self.criterion).__name__} needs targets"
                if takes_targets
                else "an AsIsLoss takes no targets: pass (values, lengths=lengths)",
                argument="targets",
            )
        if targets is not None and self.of == "error":
            return frame_errors(scores, targets, lengths, reduction="per_frame")
        per_frame: torch.Tensor = self.criterion(scores, *((targets,) if takes_targets else ()), lengths)
        return per_frame

    def extra_repr(self) -> str:
        return f"of={self.of!r}"
