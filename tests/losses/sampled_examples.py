"""What the tests of sampled softmax and noise-contrastive estimation share: batches, plain logits, checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import seqtrain as st
from seqtrain.errors import (
    ArgumentError,
    DtypeError,
    LabelError,
    NonFiniteScoresError,
    SeqtrainError,
    ShapeError,
)
from seqtrain.losses.samplers import FixedUnigramSampler, ReplayedSampler, Sample, UniformSampler
from tests.ops.examples import offsets_of

__all__ = ["BAD_INPUTS", "Formula", "SampledBatch", "check_bad_input", "check_property", "random_batch"]

Criterion = Callable[..., torch.Tensor]
Formula = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Losses (N,) from true logits (N,) and sampled ones (N, S)."""

TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-11}


@dataclass
class SampledBatch:
    """Padding holds NaN and labels that are none."""

    inputs: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    targets: torch.Tensor
    lengths: torch.Tensor
    samples: list[torch.Tensor]
    counts: torch.Tensor

    @property
    def inside(self) -> torch.Tensor:
        return torch.arange(self.inputs.shape[1]) < self.lengths[:, None]

    @property
    def options(self) -> dict[str, Any]:
        """What makes a criterion replay the samples."""
        return {
            "sampler": ReplayedSampler(self.samples, self.counts),
            "num_sampled": self.samples[0].shape[0],
            "num_splits": len(self.samples),
        }

    def arguments(self) -> tuple[torch.Tensor, ...]:
        return self.inputs, self.weight, self.bias, self.targets, self.lengths

    def packed(self) -> tuple[Any, ...]:
        rows = st.Packed(self.inputs[self.inside], offsets_of(self.lengths))
        return rows, self.weight, self.bias, self.targets[self.inside], self.lengths

    def plainly(self, formula: Formula, *, remove: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(B,) losses in float64 from all logits of all frames, one by one, and the leaves they are computed from."""
        leaves = [
            tensor.double().detach().requires_grad_() for tensor in (self.inputs, self.weight, self.bias)
        ]
        inputs, weight, bias = leaves
        frames = [(b, t) for b, length in enumerate(self.lengths.tolist()) for t in range(length)]
        part = len(frames) // len(self.samples)
        losses = [0.0 * bias.sum() for _ in self.lengths]
        for n, (b, t) in enumerate(frames):
            classes = self.samples[min(n // part, len(self.samples) - 1) if part else -1]
            label = int(self.targets[b, t])
            logits = weight @ inputs[b, t] + bias - self.counts.log()
            sampled = logits[classes]
            if remove:
                sampled = torch.where(classes == label, -torch.inf, sampled)
            losses[b] = losses[b] + formula(logits[label, None], sampled[None])[0]
        return torch.stack(losses), leaves


def random_batch(
    seed: int,
    *,
    batch: int = 3,
    frames: int = 4,
    num_splits: int = 1,
    num_sampled: int = 3,
    dtype: torch.dtype = torch.float32,
) -> SampledBatch:
    """A batch with random lengths (of 0 too), five features, seven labels."""
    g = torch.Generator().manual_seed(seed)
    features, num_labels = 5, 7
    lengths = torch.randint(0, frames + 1, (batch,), generator=g)
    inside = torch.arange(frames) < lengths[:, None]
    inputs = torch.randn(batch, frames, features, generator=g, dtype=torch.float64)
    targets = torch.randint(0, num_labels, (batch, frames), generator=g)
    return SampledBatch(
        inputs=inputs.masked_fill(~inside[..., None], torch.nan).to(dtype),
        weight=torch.randn(num_labels, features, generator=g, dtype=torch.float64).to(dtype),
        bias=torch.randn(num_labels, generator=g, dtype=torch.float64).to(dtype),
        targets=targets.masked_fill(~inside, -7),
        lengths=lengths,
        samples=[torch.randperm(num_labels, generator=g)[:num_sampled] for _ in range(num_splits)],
        counts=torch.rand(num_labels, generator=g, dtype=torch.float64) + 0.05,
    )


def check_property(
    batch: SampledBatch, criterion: Criterion, formula: Formula, *, remove: bool, packed: bool
) -> None:
    """Losses, and gradients of their weighted sum to inputs, weight and bias, agree with the plain computation."""
    dtype = batch.inputs.dtype
    tolerance = TOLERANCE[dtype]
    expected, expected_leaves = batch.plainly(formula, remove=remove)
    weights = torch.linspace(0.5, 2.0, len(batch.lengths), dtype=torch.float64)
    expected_gradients = torch.autograd.grad((weights * expected).sum(), expected_leaves, allow_unused=True)

    inputs, weight, bias, targets, lengths = batch.packed() if packed else batch.arguments()
    values = inputs.values if packed else inputs
    leaves = [tensor.detach().requires_grad_() for tensor in (values, weight, bias)]
    given = inputs._replace(values=leaves[0]) if packed else leaves[0]
    options = {"remove_accidental_hits": remove, **batch.options}
    losses = criterion(given, leaves[1], leaves[2], targets, lengths, **options)
    assert losses.dtype == torch.promote_types(dtype, torch.float32)
    # The logits aren't rounded to half precision, only the gradients are.
    torch.testing.assert_close(
        losses.double(), expected, rtol=min(tolerance, 1e-5), atol=min(tolerance, 1e-5)
    )
    gradients = torch.autograd.grad((weights.to(losses) * losses).sum(), leaves, retain_graph=True)
    for leaf, found, want in zip(leaves, gradients, expected_gradients, strict=True):
        assert found.dtype == dtype
        if want is None:
            want = torch.zeros_like(leaf, dtype=torch.float64)
        elif packed and leaf is leaves[0]:
            want = want[batch.inside]
        torch.testing.assert_close(found.double(), want, rtol=tolerance, atol=tolerance)
    if not packed:
        assert not gradients[0][~batch.inside].any()
    doubled = torch.autograd.grad((weights.to(losses) * 2.0 * losses).sum(), leaves)
    if dtype in (torch.float32, torch.float64):
        for one, two in zip(gradients, doubled, strict=True):
            assert torch.equal(2.0 * one, two)


class _Wrong:
    """A sampler that doesn't keep its promises."""

    def __init__(self, classes: torch.Tensor, counts: torch.Tensor) -> None:
        self.classes = classes
        self.counts = counts

    def sample(self, num_sampled: int, *, generator: torch.Generator | None = None) -> Sample:
        return Sample(self.classes, num_sampled)

    def expected_counts(self, sample: Sample, classes: torch.Tensor) -> torch.Tensor:
        return self.counts[classes]


_ONES = torch.ones(7, dtype=torch.float64)

BAD_INPUTS: list[tuple[dict[str, Any], type[SeqtrainError], str, str, dict[str, Any]]] = [
    ({"inputs": torch.zeros(2, 5)}, ShapeError, "inputs", r"must have shape \(B, T, F\)", {}),
    ({"inputs": torch.zeros(2, 3, 5).long()}, DtypeError, "inputs", "got torch.int64", {}),
    (
        {"inputs": torch.zeros(2, 3, 5).index_fill(1, torch.tensor(1), torch.nan)},
        NonFiniteScoresError,
        "inputs",
        "inputs of utterance 0 hold NaN or an infinity at frame 1",
        {"utterance": 0, "frame": 1},
    ),
    ({"weight": torch.zeros(7, 4)}, ShapeError, "weight", r"shape \(V, 5\), .*, got \(7, 4\)", {}),
    ({"weight": torch.zeros(7)}, ShapeError, "weight", r"shape \(V, 5\), .*, got \(7,\)", {}),
    ({"weight": torch.zeros(7, 5).int()}, DtypeError, "weight", r"floats, got torch\.int32", {}),
    ({"weight": [[1.0]]}, DtypeError, "weight", "floats, got list", {}),
    (
        {"weight": torch.zeros(7, 5).index_fill(0, torch.tensor(2), torch.inf)},
        ArgumentError,
        "weight",
        "weight of label 2 holds NaN or an infinity",
        {},
    ),
    ({"bias": torch.zeros(6)}, ShapeError, "bias", r"shape \(7,\), .*, got \(6,\)", {}),
    ({"bias": torch.zeros(7, dtype=torch.bool)}, DtypeError, "bias", r"floats, got torch\.bool", {}),
    ({"bias": torch.full((7,), torch.nan)}, ArgumentError, "bias", "bias of label 1 holds NaN", {}),
    (
        {"targets": torch.tensor([[1, 2, 3], [4, 7, 5]])},
        LabelError,
        "targets",
        "targets of utterance 1 hold 7 at frame 1",
        {"utterance": 1, "position": 1, "label": 7, "num_labels": 7},
    ),
    ({"targets": torch.ones(2, 3)}, DtypeError, "targets", "must be integer labels", {}),
    ({"targets": torch.ones(2, 4).long()}, ShapeError, "targets", r"shape \(2, 3\), like the scores", {}),
    ({"lengths": torch.tensor([3, 4])}, ShapeError, "lengths", r"lengths\[1\] = 4 must lie in 0 … 3", {}),
    ({"num_sampled": 0}, ArgumentError, "num_sampled", "num_sampled must be at least 1, got 0", {}),
    ({"num_splits": 0}, ArgumentError, "num_splits", "num_splits must be at least 1, got 0", {}),
    ({"reduction": "mean"}, ArgumentError, "reduction", "got 'mean'", {}),
    (
        {"sampler": UniformSampler(8)},
        ArgumentError,
        "sampler",
        "the sampler draws from 8 classes, but weight has 7",
        {},
    ),
    (
        {"sampler": FixedUnigramSampler([1, 1, 1, 1, 0, 1, 1])},
        ArgumentError,
        "sampler",
        "targets of utterance 1 hold 4 at frame 0, a label that the sampler can't draw",
        {},
    ),
    ({"sampler": UniformSampler(7), "num_sampled": 8}, ArgumentError, "num_sampled", "1 … 7", {}),
    (
        {"sampler": _Wrong(torch.tensor([1, 2, 7]), _ONES)},
        ArgumentError,
        "sampler",
        r"must draw 3 classes 0 … 6, and drew \(3,\) up to 7",
        {},
    ),
    (
        {"sampler": _Wrong(torch.tensor([1, 2]), _ONES)},
        ArgumentError,
        "sampler",
        r"must draw 3 classes 0 … 6, and drew \(2,\)",
        {},
    ),
    (
        {"sampler": _Wrong(torch.tensor([1, 0, 2]), torch.eye(7)[1] + torch.eye(7)[2])},
        ArgumentError,
        "sampler",
        "the sampler drew class 0, for which it expects a count of 0",
        {},
    ),
]


def check_bad_input(
    criterion: Criterion,
    changes: dict[str, Any],
    error: type[SeqtrainError],
    argument: str,
    message: str,
    fields: dict[str, Any],
) -> None:
    """The criterion raises as told where some arguments of a good call are changed."""
    arguments: dict[str, Any] = {
        "inputs": torch.zeros(2, 3, 5), "weight": torch.zeros(7, 5), "bias": torch.zeros(7),
        "targets": torch.tensor([[1, 2, 3], [4, 6, 5]]), "lengths": torch.tensor([3, 2]), "num_sampled": 3,
        "sampler": ReplayedSampler([torch.tensor([1, 2, 3])], _ONES),
    }  # fmt: skip
    criterion(**arguments)
    with pytest.raises(error, match=message) as caught:
        criterion(**arguments | changes)
    assert type(caught.value) is error
    assert caught.value.argument == argument  # type: ignore[attr-defined]  # an ArgumentError
    for field, value in fields.items():
        assert getattr(caught.value, field) == value
