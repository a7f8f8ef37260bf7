"""Contrastive hinge over pairs of embeddings, as used for acoustic word embeddings.

With the cosine distance d_ij = 1 - e_i · e_j of embeddings e of unit length, over all ordered pairs of rows, i = j too,
    loss = 1/2 · Σ_{same label} d_ij + 1/2 · Σ_{other label} max(margin - d_ij, 0)
Its name notwithstanding, this is not the triplet hinge max(margin + d(anchor, same) - d(anchor, different), 0) but one
over pairs, of all rows of a batch of triplets, as RETURNN's loss of this name is. H. Kamper, W. Wang, K. Livescu: Deep
Convolutional Acoustic Word Embeddings Using Word-Pair Side Information, ICASSP 2016.
"""

from __future__ import annotations

import math

import torch

from seqtrain.errors import ArgumentError, DeviceError, DtypeError, NonFiniteScoresError, ShapeError
from seqtrain.losses.frames import widened
from seqtrain.losses.reduction import check_reduction
from seqtrain.scores import FLOATS, host_integers

__all__ = ["TripletLoss", "pairwise_hinge", "triplet", "triplet_loss"]

_REDUCTIONS = ("sum", "pairs")

# The least length that an embedding is divided by.
_MIN_LENGTH = math.sqrt(1e-15)


def triplet(embeddings: torch.Tensor, labels: torch.Tensor, *, margin: float) -> torch.Tensor:
    """The contrastive hinge over all pairs of embeddings.

    Args:
        embeddings: (M, E), float16 … float64, of any length.
        labels: (M,) int, any numbers: rows of equal labels belong together.
        margin: distance that rows of different labels should have at least; cosine distances lie in 0 … 2.

    Returns:
        Scalar ≥ 0 but for rounding; float32, float64 for float64.

    Raises:
        NonFiniteScoresError (`utterance` is the row), ShapeError, DtypeError, ArgumentError.
    """
    _check_margin(margin)
    _check_embeddings(embeddings, "embeddings")
    labels = host_integers(labels, "labels", (embeddings.shape[0],)).to(embeddings.device)
    return _pairs(embeddings, labels, margin)


def triplet_loss(
    anchor: torch.Tensor,
    same: torch.Tensor,
    different: torch.Tensor,
    labels: torch.Tensor,
    *,
    margin: float,
    reduction: str = "sum",
) -> torch.Tensor:
    """The contrastive hinge over all pairs of the 3·B embeddings of B triplets.

    Args:
        anchor, same, different: (B, E), float16 … float64.
        labels: (B, 3) int, of the three. What belongs together, labels alone say.
        margin: as in `triplet`.
        reduction: "sum", or "pairs": divided by the 9·B pairs within triplets.

    Returns:
        Scalar ≥ 0 but for rounding; float32, float64 for float64.

    Raises:
        NonFiniteScoresError (`utterance` is the triplet), ShapeError, DtypeError, DeviceError, ArgumentError.
    """
    check_reduction(reduction, allowed=_REDUCTIONS)
    _check_margin(margin)
    for argument, embeddings in (("anchor", anchor), ("same", same), ("different", different)):
        _check_embeddings(embeddings, argument)
        if embeddings.shape != anchor.shape:
            raise ShapeError(
                f"{argument} must have the anchor's shape {tuple(anchor.shape)}, got {tuple(embeddings.shape)}",
                argument=argument,
            )
        if embeddings.device != anchor.device:
            raise DeviceError(
                f"{argument} is on {embeddings.device}, the anchor on {anchor.device}: move one to the other",
                argument=argument,
            )
    labels = host_integers(labels, "labels", (anchor.shape[0], 3)).to(anchor.device)
    total = _pairs(torch.cat((anchor, same, different)), labels.t().flatten(), margin)
    return total if reduction == "sum" else total / (9 * max(anchor.shape[0], 1))


class TripletLoss(torch.nn.Module):
    """`triplet_loss` with its options kept.

    Called with (anchor, same, different, labels); shapes and errors as in `triplet_loss`. By default the loss is
    divided by the number of pairs within triplets.
    """

    def __init__(self, *, margin: float, reduction: str = "pairs") -> None:
        super().__init__()
        check_reduction(reduction, allowed=_REDUCTIONS)
        _check_margin(margin)
        self.margin = margin
        self.reduction = reduction

    def forward(
        self, anchor: torch.Tensor, same: torch.Tensor, different: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        return triplet_loss(anchor, same, different, labels, margin=self.margin, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, reduction={self.reduction!r}"


def _pairs(embeddings: torch.Tensor, labels: torch.Tensor, margin: float) -> torch.Tensor:
    return pairwise_hinge(embeddings, labels[:, None] == labels, margin=margin)


def pairwise_hinge(embeddings: torch.Tensor, same: torch.Tensor, *, margin: float) -> torch.Tensor:
    """The contrastive hinge for embeddings (M, E) and any relation (M, M) bool of what belongs together, unchecked."""
    unit = torch.nn.functional.normalize(widened(embeddings), dim=1, eps=_MIN_LENGTH)
    # Autocast would take the product to half precision.
    with torch.autocast(unit.device.type, enabled=False):
        distances = 1.0 - unit @ unit.t()
    return 0.5 * torch.where(same, distances, (margin - distances).clamp(min=0.0)).sum()


def _check_margin(margin: float) -> None:
    if not math.isfinite(margin):
        raise ArgumentError(f"margin must be finite, got {margin}", argument="margin")


def _check_embeddings(embeddings: torch.Tensor, argument: str) -> None:
    if not isinstance(embeddings, torch.Tensor):
        raise DtypeError(
            f"{argument} must be a torch.Tensor, got {type(embeddings).__name__}", argument=argument
        )
    if embeddings.dim() != 2 or embeddings.shape[1] < 1:
        raise ShapeError(
            f"{argument} must have 2 dimensions, rows and their features, got shape {tuple(embeddings.shape)}",
            argument=argument,
        )
    if embeddings.dtype not in FLOATS:
        raise DtypeError(
            f"{argument} must be float16, bfloat16, float32 or float64, got {embeddings.dtype}",
            argument=argument,
        )
    good = torch.isfinite(embeddings).all(dim=1)
    if not bool(good.all()):
        row = int((~good).nonzero()[0])
        raise NonFiniteScoresError(
            f"{argument} hold NaN or an infinity in row {row}", argument=argument, utterance=row, frame=0
        )
