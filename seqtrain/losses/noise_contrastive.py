"""Noise-contrastive estimation: tell each frame's label from classes that a sampler made up.

With the corrected logits of `seqtrain.losses.sampled_logits` and σ the logistic function, the loss of a frame is
    l_n = -log σ(true_n - z) - Σ_j log σ(z - sampled_nj),
z the log of a normalization that the model is supposed to have: 0 trains it to normalize itself. M. Gutmann,
A. Hyvärinen: Noise-Contrastive Estimation: A New Estimation Principle for Unnormalized Statistical Models, AISTATS
2010; A. Mnih, Y. W. Teh: A Fast and Simple Algorithm for Training Neural Probabilistic Language Models, ICML 2012.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from seqtrain.losses.reduction import FRAME_REDUCTIONS, check_reduction
from seqtrain.losses.sampled_logits import check_sampling, sampled_logits
from seqtrain.losses.samplers import Sampler
from seqtrain.scores import Scores

__all__ = ["NoiseContrastiveLoss", "noise_contrastive"]


def noise_contrastive(
    inputs: Scores,
    weight: torch.Tensor,
    bias: torch.Tensor,
    targets: torch.Tensor,
    lengths: torch.Tensor | None = None,
    *,
    sampler: Sampler,
    num_sampled: int = 128,
    num_splits: int = 1,
    remove_accidental_hits: bool = False,
    log_norm: float = 0.0,
    generator: torch.Generator | None = None,
    reduction: str = "none",
) -> torch.Tensor:
    """Logistic loss of each frame's label against sampled classes.

    The gradient reaches inputs, weight and bias; the sample is a constant.

    Args:
        inputs, weight, bias, targets, lengths, sampler, num_sampled, num_splits, generator, reduction: as in
            `seqtrain.losses.sampled_softmax`.
        remove_accidental_hits: a sampled class that is the frame's label doesn't count as noise.
        log_norm: what is subtracted from all logits, the log of the model's normalization.

    Returns:
        (B,) losses summed over frames, or their reduction; float32, float64 where any of the three tensors is.

    Raises:
        As `seqtrain.losses.sampled_softmax`.
    """
    check_reduction(reduction, allowed=FRAME_REDUCTIONS)
    true, sampled, frames = sampled_logits(
        inputs, weight, bias, targets, lengths, sampler=sampler, num_sampled=num_sampled, num_splits=num_splits,
        remove_accidental_hits=remove_accidental_hits, generator=generator,
    )  # fmt: skip
    losses = -logsigmoid(true - log_norm) - logsigmoid(log_norm - sampled).sum(dim=1)
    return frames.reduce(losses, reduction)


class NoiseContrastiveLoss(torch.nn.Module):
    """`noise_contrastive` with its options and its sampler, whose state is saved with the module's.

    Called with (inputs (B, T, D), weight (V, D), bias (V,), targets (B, T), lengths=None, *, generator=None).
    """

    def __init__(
        self,
        sampler: Sampler,
        *,
        num_sampled: int = 128,
        num_splits: int = 1,
        remove_accidental_hits: bool = False,
        log_norm: float = 0.0,
        reduction: str = "batch",
    ) -> None:
        super().__init__()
        check_reduction(reduction, allowed=FRAME_REDUCTIONS)
        check_sampling(num_sampled, num_splits)
        self.sampler = sampler
        self.num_sampled = num_sampled
        self.num_splits = num_splits
        self.remove_accidental_hits = remove_accidental_hits
        self.log_norm = log_norm
        self.reduction = reduction

    def forward(
        self,
        inputs: Scores,
        weight: torch.Tensor,
        bias: torch.Tensor,
        targets: torch.Tensor,
        lengths: torch.Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        return noise_contrastive(
            inputs, weight, bias, targets, lengths, sampler=self.sampler, num_sampled=self.num_sampled,
            num_splits=self.num_splits, remove_accidental_hits=self.remove_accidental_hits, log_norm=self.log_norm,
            generator=generator, reduction=self.reduction,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"num_sampled={self.num_sampled}, num_splits={self.num_splits}, "
            f"remove_accidental_hits={self.remove_accidental_hits}, log_norm={self.log_norm}, "
            f"reduction={self.reduction!r}"
        )
