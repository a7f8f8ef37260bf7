"""Sampled softmax: cross entropy over the true label and a few sampled classes, for output layers with many labels.

With the corrected logits of `seqtrain.losses.sampled_logits`, the loss of a frame is
    l_n = logsumexp(true_n, sampled_n1 … sampled_nS) - true_n,
whose gradient is an importance-sampled estimate of that of softmax cross entropy. S. Jean, K. Cho, R. Memisevic,
Y. Bengio: On Using Very Large Target Vocabulary for Neural Machine Translation, ACL 2015; Y. Bengio, J.-S. Senécal:
Quick Training of Probabilistic Neural Nets by Importance Sampling, AISTATS 2003.
"""

from __future__ import annotations

import torch

from seqtrain.losses.reduction import FRAME_REDUCTIONS, check_reduction
from seqtrain.losses.sampled_logits import check_sampling, sampled_logits
from seqtrain.losses.samplers import Sampler
from seqtrain.scores import Scores

__all__ = ["SampledSoftmaxLoss", "sampled_softmax"]


def sampled_softmax(
    inputs: Scores,
    weight: torch.Tensor,
    bias: torch.Tensor,
    targets: torch.Tensor,
    lengths: torch.Tensor | None = None,
    *,
    sampler: Sampler,
    num_sampled: int = 128,
    num_splits: int = 1,
    remove_accidental_hits: bool = True,
    generator: torch.Generator | None = None,
    reduction: str = "none",
) -> torch.Tensor:
    """Cross entropy of each frame's label among itself and sampled classes.

    The gradient reaches inputs, weight and bias; the sample is a constant.

    Args:
        inputs: (B, T, D) or `Packed` (ΣT, D), what the output layer gets; float16 … float64.
        weight: (V, D) of the output layer, any float dtype.
        bias: (V,).
        targets: (B, T) int label of each frame; packed (ΣT,).
        lengths: (B,) int frames; None: all frames count.
        sampler: draws the classes, e.g. `LogUniformSampler(V)`. In training, one that learns observes the labels.
        num_sampled: S, the number of classes that stand for all others.
        num_splits: how many samples a batch gets, each for as many of its frames, in order; the last has the rest.
        remove_accidental_hits: a sampled class that is the frame's label doesn't count against it.
        generator: of random numbers.
        reduction: one of `seqtrain.losses.reduction.FRAME_REDUCTIONS`.

    Returns:
        (B,) losses summed over frames, or their reduction; float32, float64 where any of the three tensors is.

    Raises:
        LabelError, NonFiniteScoresError (of the inputs), ShapeError, DtypeError, DeviceError. ArgumentError: more
        classes are asked for than the sampler has, a label that it can't draw, weight or bias of a class that enter and
        aren't finite.
    """
    check_reduction(reduction, allowed=FRAME_REDUCTIONS)
    true, sampled, frames = sampled_logits(
        inputs, weight, bias, targets, lengths, sampler=sampler, num_sampled=num_sampled, num_splits=num_splits,
        remove_accidental_hits=remove_accidental_hits, generator=generator,
    )  # fmt: skip
    losses = -torch.cat([true[:, None], sampled], dim=1).log_softmax(dim=1)[:, 0]
    return frames.reduce(losses, reduction)


class SampledSoftmaxLoss(torch.nn.Module):
    """`sampled_softmax` with its options and its sampler, whose state is saved with the module's.

    Called with (inputs (B, T, D), weight (V, D), bias (V,), targets (B, T), lengths=None, *, generator=None). Sampled
    classes are for training: evaluate with the whole softmax.
    """

    def __init__(
        self,
        sampler: Sampler,
        *,
        num_sampled: int = 128,
        num_splits: int = 1,
        remove_accidental_hits: bool = True,
        reduction: str = "batch",
    ) -> None:
        super().__init__()
        check_reduction(reduction, allowed=FRAME_REDUCTIONS)
        check_sampling(num_sampled, num_splits)
        self.sampler = sampler
        self.num_sampled = num_sampled
        self.num_splits = num_splits
        self.remove_accidental_hits = remove_accidental_hits
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
        return sampled_softmax(
            inputs, weight, bias, targets, lengths, sampler=self.sampler, num_sampled=self.num_sampled,
            num_splits=self.num_splits, remove_accidental_hits=self.remove_accidental_hits, generator=generator,
            reduction=self.reduction,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"num_sampled={self.num_sampled}, num_splits={self.num_splits}, "
            f"remove_accidental_hits={self.remove_accidental_hits}, reduction={self.reduction!r}"
        )
