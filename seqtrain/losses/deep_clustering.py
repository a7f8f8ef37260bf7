"""Deep clustering: embeddings of time-frequency bins, alike where one source dominates both.

V (N, E) holds the embeddings of an utterance's N = frames · G bins, Y (N, S) the one-hot dominating source of each:
    loss = ||V Vᵀ - Y Yᵀ||² = ||Vᵀ V||² - 2 ||Vᵀ Y||² + ||Yᵀ Y||²
of which the right side needs no N × N matrix. J. R. Hershey et al.: Deep Clustering: Discriminative Embeddings for
Segmentation and Separation, ICASSP 2016.
"""

from __future__ import annotations

import torch

from seqtrain.errors import ArgumentError, ShapeError
from seqtrain.losses.frame_values import dense_targets
from seqtrain.losses.frames import Frames, frames_of, widened
from seqtrain.losses.reduction import check_reduction, reduce
from seqtrain.scores import Scores

__all__ = ["DeepClusteringLoss", "deep_clustering"]

_REDUCTIONS = ("none", "sum", "batch", "frames")


def deep_clustering(
    embeddings: Scores,
    targets: torch.Tensor,
    lengths: torch.Tensor | None = None,
    *,
    embedding_dimension: int,
    num_sources: int,
    reduction: str = "none",
) -> torch.Tensor:
    """Squared distance of an utterance's affinities, of all pairs of its bins, to those of the targets.

    Args:
        embeddings: (B, T, G·E) or `Packed` (ΣT, G·E), float16 … float64: G bins a frame, bin g the features
            g·E … g·E + E - 1. As they are: the paper scales each bin's to unit length.
        targets: (B, T, G·S) float, bin g the sources g·S … g·S + S - 1 (packed: (ΣT, G·S)); the gradient reaches
            them too.
        lengths: (B,) int frames of each utterance; None: all T, or those of the packed embeddings.
        embedding_dimension: E.
        num_sources: S.
        reduction: "none", "sum", "batch" or "frames".

    Returns:
        (B,) losses ≥ 0 but for rounding, or their reduction; float32, float64 for float64.

    Raises:
        ShapeError: the targets' dimension isn't G·S, or the embeddings' isn't G·E for the same G. NonFiniteScoresError,
        DtypeError, DeviceError, ArgumentError.
    """
    _check_options(embedding_dimension, num_sources, reduction)
    given, frames = frames_of(embeddings, lengths, argument="embeddings")
    frames.check_finite(given, "embeddings")
    rows = widened(given)
    wanted = dense_targets(frames, targets, None, rows.dtype)
    bins, rest = divmod(wanted.shape[1], num_sources)
    if rest or bins == 0:
        raise ShapeError(
            f"targets have {wanted.shape[1]} values a frame, which isn't a multiple of num_sources = {num_sources}",
            argument="targets",
        )
    if rows.shape[1] != bins * embedding_dimension:
        raise ShapeError(
            f"embeddings have {rows.shape[1]} features a frame, and the targets' {bins} bins need {bins} · "
            f"embedding_dimension = {bins * embedding_dimension}",
            argument="embeddings",
        )
    v = _bins(frames, rows, embedding_dimension)
    y = _bins(frames, wanted, num_sources)
    losses = _squared_product(v, v) - 2.0 * _squared_product(v, y) + _squared_product(y, y)
    return reduce(losses, reduction, lengths=frames.lengths)


class DeepClusteringLoss(torch.nn.Module):
    """`deep_clustering` with its options kept.

    Called with (embeddings, targets, lengths=None); shapes and errors as in `deep_clustering`. By default the loss is
    the batch's sum divided by the number of utterances.
    """

    def __init__(self, *, embedding_dimension: int, num_sources: int, reduction: str = "batch") -> None:
        super().__init__()
        _check_options(embedding_dimension, num_sources, reduction)
        self.embedding_dimension = embedding_dimension
        self.num_sources = num_sources
        self.reduction = reduction

    def forward(
        self, embeddings: Scores, targets: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        return deep_clustering(
            embeddings, targets, lengths, embedding_dimension=self.embedding_dimension,
            num_sources=self.num_sources, reduction=self.reduction,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"embedding_dimension={self.embedding_dimension}, num_sources={self.num_sources}, "
            f"reduction={self.reduction!r}"
        )


def _check_options(embedding_dimension: int, num_sources: int, reduction: str) -> None:
    check_reduction(reduction, allowed=_REDUCTIONS)
    for argument, value in (("embedding_dimension", embedding_dimension), ("num_sources", num_sources)):
        if not isinstance(value, int) or value < 1:
            raise ArgumentError(f"{argument} must be an int of at least 1, got {value!r}", argument=argument)


def _bins(frames: Frames, rows: torch.Tensor, size: int) -> torch.Tensor:
    """(B, T·G, size): the bins of each utterance's rows (N, G·size), those past its end zero, which adds nothing."""
    width = rows.shape[1]
    inside = frames.inside()[:, :, None]
    padded = rows.new_zeros(frames.batch, frames.limit, width).masked_scatter(inside, rows)
    return padded.reshape(frames.batch, frames.limit * (width // size), size)


def _squared_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(B,): ||leftᵀ right||² of (B, N, ·) and (B, N, ·)."""
    # Autocast would take the product to half precision.
    with torch.autocast(left.device.type, enabled=False):
        return torch.bmm(left.transpose(1, 2), right).square().sum(dim=(1, 2))
