"""Distributions from which sampled criteria draw the few classes that stand for all others.

S distinct classes are drawn as by drawing with replacement from p until S distinct ones have been seen. The number of
draws that takes, `tries`, gives each class the count that is expected of it in such a sample,
    Q(c) = 1 - (1 - p(c))^tries,   or S · p(c) where no class was drawn twice.
Y. Bengio, J.-S. Senécal: Quick Training of Probabilistic Neural Nets by Importance Sampling, AISTATS 2003; S. Jean,
K. Cho, R. Memisevic, Y. Bengio: On Using Very Large Target Vocabulary for Neural Machine Translation, ACL 2015.

Drawing is a race, not a loop that rejects what it has seen: the classes of the S largest log p(c) + Gumbel noise are,
in this order, distributed like the distinct classes in order of their first appearance (W. Kool, H. van Hoof,
M. Welling: Stochastic Beams and Where to Find Them, ICML 2019), and the number of draws until the next new class is
geometric, its success probability being the mass of those not seen yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch

from seqtrain.errors import ArgumentError, DtypeError, ShapeError
from seqtrain.scores import INTEGERS

__all__ = [
    "FixedUnigramSampler",
    "LearnedUnigramSampler",
    "LogUniformSampler",
    "ReplayedSampler",
    "Sample",
    "Sampler",
    "UniformSampler",
]


class Sample(NamedTuple):
    """What was drawn.

    Attributes:
        classes: (S,) int64, distinct, in order of their first appearance.
        tries: how many draws with replacement it took to see them, S at least.
    """

    classes: torch.Tensor
    tries: int


class Sampler(Protocol):
    """Whatever draws classes.

    A sampler with a method `observe(labels (N,) int)` is told the true labels after each draw, unless its attribute
    `training` is false. One with an attribute `num_labels` is refused where the output layer has another number.
    """

    def sample(self, num_sampled: int, *, generator: torch.Generator | None = None) -> Sample: ...

    def expected_counts(self, sample: Sample, classes: torch.Tensor) -> torch.Tensor: ...


class _ProposalSampler(torch.nn.Module):
    """Draws classes in proportion to (V,) weights, in float64."""

    def __init__(self, weights: torch.Tensor, *, learned: bool = False) -> None:
        super().__init__()
        self.weights: torch.Tensor
        # What follows from the arguments is no state: only what was learned is saved.
        self.register_buffer("weights", weights, persistent=learned)

    def _apply(self, fn: Any, *recurse: bool) -> _ProposalSampler:
        # A model that changes its dtype takes its buffers along; the weights change device alone.
        weights = self.weights
        super()._apply(fn, *recurse)  # type: ignore[no-untyped-call]  # torch has no types here
        self.weights = weights.to(self.weights.device)
        return self

    @property
    def num_labels(self) -> int:
        """V."""
        return self.weights.shape[0]

    @property
    def probabilities(self) -> torch.Tensor:
        """(V,) float64 p(c) of one draw."""
        return self.weights / self.weights.sum()

    @torch.no_grad()
    def sample(self, num_sampled: int, *, generator: torch.Generator | None = None) -> Sample:
        """Draws distinct classes.

        Args:
            num_sampled: S.
            generator: of random numbers, on any device; None: the default one of the sampler's device.

        Raises:
            ArgumentError: S is below 1, or above the number of classes that can be drawn at all.
        """
        weights = self.weights
        possible = int((weights > 0).sum())
        if not 1 <= num_sampled <= possible:
            raise ArgumentError(
                f"num_sampled must lie in 1 … {possible}, the number of classes with a probability above 0, got "
                f"{num_sampled}",
                argument="num_sampled",
            )
        device = weights.device if generator is None else generator.device
        noise = torch.empty(self.num_labels, dtype=torch.float64, device=device)
        noise = noise.exponential_(generator=generator).to(weights.device)
        # -log of exponential noise is Gumbel noise.
        keys = torch.where(weights > 0, weights.log() - noise.log(), -torch.inf)
        classes = keys.topk(num_sampled).indices
        # Sums of what is left, never differences from the whole: nothing cancels where little is left.
        undrawn = weights.index_fill(0, classes, 0.0).sum().cpu()
        unseen = weights[classes].cpu().flip(0).cumsum(0).flip(0) + undrawn
        uniform = 1.0 - torch.rand(num_sampled, dtype=torch.float64, device=device, generator=generator).cpu()
        repeats = torch.floor(uniform.log() / torch.log1p(-unseen / unseen[0]))
        return Sample(classes, num_sampled + int(repeats.sum().item()))

    def expected_counts(self, sample: Sample, classes: torch.Tensor) -> torch.Tensor:
        """(…) float64 Q(c) of int classes (…), each 0 … V - 1, for this sample."""
        p = self.probabilities[classes.to(self.weights.device, torch.int64)]
        size = sample.classes.shape[0]
        if sample.tries == size:
            return p * size
        return -torch.expm1(float(sample.tries) * torch.log1p(-p))

    def extra_repr(self) -> str:
        return f"num_labels={self.num_labels}"


def _check_num_labels(num_labels: int) -> None:
    if num_labels < 1:
        raise ArgumentError(f"num_labels must be at least 1, got {num_labels}", argument="num_labels")


class UniformSampler(_ProposalSampler):
    """p(c) = 1 / V."""

    def __init__(self, num_labels: int) -> None:
        _check_num_labels(num_labels)
        super().__init__(torch.ones(num_labels, dtype=torch.float64))


class LogUniformSampler(_ProposalSampler):
    """p(c) = log((c + 2) / (c + 1)) / log(V + 1): like Zipf's law for classes ordered by falling frequency."""

    def __init__(self, num_labels: int) -> None:
        _check_num_labels(num_labels)
        super().__init__(torch.log1p(1.0 / torch.arange(1, num_labels + 1, dtype=torch.float64)))


class FixedUnigramSampler(_ProposalSampler):
    """p(c) ∝ counts[c]^distortion.

    Args:
        counts: (V,) how often each class occurs, or its probability; 0 for one that's never drawn.
        distortion: 1 keeps the unigram, 0 makes it uniform.

    Raises:
        ShapeError: counts aren't one value a class.
        ArgumentError: a count is negative or not finite, or none is above 0; the distortion makes a weight infinite.
    """

    def __init__(self, counts: torch.Tensor | Sequence[float], *, distortion: float = 1.0) -> None:
        counts = torch.as_tensor(counts, dtype=torch.float64).detach()
        if counts.dim() != 1 or counts.shape[0] < 1:
            raise ShapeError(
                f"counts must have shape (V,), V ≥ 1, got {tuple(counts.shape)}", argument="counts"
            )
        bad = ~torch.isfinite(counts) | (counts < 0)
        if bool(bad.any()):
            label = int(bad.nonzero()[0])
            raise ArgumentError(
                f"counts[{label}] = {float(counts[label])} must be finite and 0 at least", argument="counts"
            )
        if not bool(counts.any()):
            raise ArgumentError("counts are all 0: there is nothing to draw", argument="counts")
        weights = (counts / counts.max()) ** distortion
        if not bool(torch.isfinite(weights).all()):
            raise ArgumentError(
                f"distortion = {distortion} makes the weight of a class infinite or NaN",
                argument="distortion",
            )
        super().__init__(weights)
        self.distortion = distortion

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, distortion={self.distortion}"


class LearnedUnigramSampler(_ProposalSampler):
    """p(c) ∝ 1 + how often label c has been observed. The counts are saved with the module's `state_dict`."""

    def __init__(self, num_labels: int) -> None:
        _check_num_labels(num_labels)
        super().__init__(torch.ones(num_labels, dtype=torch.float64), learned=True)

    @torch.no_grad()
    def observe(self, labels: torch.Tensor) -> None:
        """Counts labels, int of any shape.

        Raises:
            DtypeError; ArgumentError: a label outside 0 … V - 1. The counts stay as they were.
        """
        if labels.dtype not in INTEGERS:
            raise DtypeError(f"labels must be integers, got {labels.dtype}", argument="labels")
        labels = labels.to(self.weights.device).flatten().long()
        outside = (labels < 0) | (labels >= self.num_labels)
        if bool(outside.any()):
            raise ArgumentError(
                f"label {int(labels[outside][0])} isn't one of the sampler's {self.num_labels}, 0 … "
                f"{self.num_labels - 1}",
                argument="labels",
            )
        self.weights += labels.bincount(minlength=self.num_labels)


class ReplayedSampler:
    """Returns given samples in turn, and then the first again: with one for each split, every call sees the same.

    Args:
        samples: (S,) int classes of each sample.
        expected_counts: (V,) Q(c) of each class, in all of them.

    Raises:
        ShapeError, DtypeError, ArgumentError: no samples, or one that isn't (S,) integers 0 … V - 1.
    """

    def __init__(self, samples: Sequence[torch.Tensor], expected_counts: torch.Tensor) -> None:
        if expected_counts.dim() != 1:
            raise ShapeError(
                f"expected_counts must have shape (V,), got {tuple(expected_counts.shape)}",
                argument="expected_counts",
            )
        if not samples:
            raise ArgumentError("samples are empty: there is nothing to replay", argument="samples")
        self.num_labels = expected_counts.shape[0]
        for i, classes in enumerate(samples):
            if classes.dtype not in INTEGERS:
                raise DtypeError(f"samples[{i}] must be integers, got {classes.dtype}", argument="samples")
            if classes.dim() != 1 or classes.shape[0] < 1:
                raise ShapeError(
                    f"samples[{i}] must have shape (S,), S ≥ 1, got {tuple(classes.shape)}",
                    argument="samples",
                )
            if int(classes.min()) < 0 or int(classes.max()) >= self.num_labels:
                raise ArgumentError(
                    f"samples[{i}] has classes {int(classes.min())} … {int(classes.max())}, but expected_counts are "
                    f"of {self.num_labels} classes, 0 … {self.num_labels - 1}",
                    argument="samples",
                )
        self._samples = [classes.long() for classes in samples]
        self._expected_counts = expected_counts.detach().double()
        self._next = 0

    def sample(self, num_sampled: int, *, generator: torch.Generator | None = None) -> Sample:
        """The next sample; `tries` is its size.

        Raises:
            ArgumentError: it doesn't have `num_sampled` classes.
        """
        classes = self._samples[self._next]
        if classes.shape[0] != num_sampled:
            raise ArgumentError(
                f"num_sampled = {num_sampled}, but the sample to replay has {classes.shape[0]} classes",
                argument="num_sampled",
            )
        self._next = (self._next + 1) % len(self._samples)
        return Sample(classes, num_sampled)

    def expected_counts(self, sample: Sample, classes: torch.Tensor) -> torch.Tensor:
        """(…) float64 Q(c) of int classes (…)."""
        return self._expected_counts[classes.to(self._expected_counts.device)]
