"""Noise-contrastive estimation: its formula, its gradients, its options."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.errors import ArgumentError, SeqtrainError
from seqtrain.losses.noise_contrastive import NoiseContrastiveLoss, noise_contrastive
from seqtrain.losses.samplers import LearnedUnigramSampler, ReplayedSampler, UniformSampler
from tests.fsa.strategies import quick
from tests.losses.sampled_examples import BAD_INPUTS, Formula, check_bad_input, check_property, random_batch

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def formula(log_norm: float) -> Formula:
    def losses(true: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
        genuine = torch.sigmoid(true - log_norm)
        noise = torch.sigmoid(sampled - log_norm)
        return -genuine.log() - (1.0 - noise).log().sum(dim=1)

    return losses


@quick
@given(
    seed=hs.integers(0, 2**32),
    batch=hs.integers(1, 3),
    frames=hs.integers(1, 4),
    num_splits=hs.integers(1, 3),
    num_sampled=hs.integers(1, 7),
    dtype=hs.sampled_from(DTYPES),
    remove=hs.booleans(),
    packed=hs.booleans(),
    log_norm=hs.sampled_from([0.0, 1.5]),
)
def test_against_the_formula(
    seed: int, batch: int, frames: int, num_splits: int, num_sampled: int, dtype: torch.dtype, remove: bool,
    packed: bool, log_norm: float,
) -> None:  # fmt: skip
    example = random_batch(
        seed, batch=batch, frames=frames, num_splits=num_splits, num_sampled=num_sampled, dtype=dtype
    )

    def criterion(*arguments: Any, **options: Any) -> torch.Tensor:
        return noise_contrastive(*arguments, log_norm=log_norm, **options)

    check_property(example, criterion, formula(log_norm), remove=remove, packed=packed)


def test_large_logits_are_exact() -> None:
    """1 - σ(40) is 0 in single precision; its log is not -inf."""
    sampler = ReplayedSampler([torch.tensor([1])], torch.ones(3))
    bias = torch.tensor([-90.0, 80.0, 0.0]).requires_grad_()
    loss = noise_contrastive(
        torch.zeros(1, 1, 2), torch.zeros(3, 2), bias, torch.tensor([[0]]), sampler=sampler, num_sampled=1,
        reduction="sum",
    )  # fmt: skip
    assert loss.item() == 170.0
    (gradient,) = torch.autograd.grad(loss, bias)
    assert gradient.tolist() == [-1.0, 1.0, 0.0]


def test_a_removed_hit_costs_nothing() -> None:
    sampler = ReplayedSampler([torch.tensor([0])], torch.ones(3))
    bias = torch.zeros(3, requires_grad=True)
    arguments = torch.zeros(1, 1, 2), torch.zeros(3, 2), bias, torch.tensor([[0]])
    options: dict[str, Any] = {"sampler": sampler, "num_sampled": 1, "reduction": "sum"}
    kept = noise_contrastive(*arguments, **options)
    removed = noise_contrastive(*arguments, **options, remove_accidental_hits=True)
    torch.testing.assert_close(kept, 2 * torch.tensor(2.0).log())
    torch.testing.assert_close(removed, torch.tensor(2.0).log())
    (gradient,) = torch.autograd.grad(removed, bias)
    assert gradient.tolist() == [-0.5, 0.0, 0.0]


@pytest.mark.parametrize("reduction", ["per_frame", "none", "sum", "batch", "frames"])
@pytest.mark.parametrize("packed", [False, True])
def test_reductions(reduction: str, packed: bool) -> None:
    example = random_batch(1, num_splits=2)
    arguments = example.packed() if packed else example.arguments()
    frames = noise_contrastive(*example.arguments(), **example.options, reduction="per_frame")
    assert not frames[~example.inside].any()
    total = frames.sum()
    expected = {
        "per_frame": frames[example.inside] if packed else frames, "none": frames.sum(dim=1), "sum": total,
        "batch": total / 3, "frames": total / int(example.lengths.sum()),
    }[reduction]  # fmt: skip
    loss = noise_contrastive(*arguments, **example.options, reduction=reduction)
    torch.testing.assert_close(loss, expected)
    module = NoiseContrastiveLoss(**example.options, reduction=reduction)
    assert torch.equal(module(*arguments), loss)


def test_no_utterances_and_no_frames() -> None:
    weight, bias, sampler = torch.ones(7, 5).requires_grad_(), torch.zeros(7), UniformSampler(7)
    for batch, lengths in ((0, []), (2, [0, 0])):
        inputs = torch.full((batch, 3, 5), torch.nan, requires_grad=True)
        losses = noise_contrastive(
            inputs, weight, bias, torch.full((batch, 3), -1), torch.tensor(lengths, dtype=torch.int64),
            sampler=sampler, num_sampled=2,
        )  # fmt: skip
        assert torch.equal(losses, torch.zeros(batch))
        gradients = torch.autograd.grad(losses.sum(), (inputs, weight))
        assert all(not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("remove", [False, True])
def test_gradcheck(remove: bool) -> None:
    example = random_batch(4, num_splits=2, dtype=torch.float64)
    leaves = [tensor.nan_to_num().requires_grad_() for tensor in example.arguments()[:3]]

    def losses(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return noise_contrastive(
            inputs, weight, bias, example.targets, example.lengths, **example.options,
            remove_accidental_hits=remove, log_norm=0.7,
        )  # fmt: skip

    assert torch.autograd.gradcheck(losses, leaves)


def test_a_learned_sampler_observes_labels_in_training() -> None:
    example = random_batch(9, batch=8)
    sampler = LearnedUnigramSampler(7)
    module = NoiseContrastiveLoss(sampler, num_sampled=3, num_splits=2)
    module(*example.arguments())
    seen = torch.ones(7, dtype=torch.float64) + example.targets[example.inside].bincount(minlength=7)
    assert torch.equal(sampler.weights, seen)
    module.eval()(*example.arguments())
    assert torch.equal(sampler.weights, seen)


def test_the_modules_defaults_repr_and_copies() -> None:
    example = random_batch(11)
    module = NoiseContrastiveLoss(UniformSampler(7), num_sampled=4)
    expected = noise_contrastive(
        *example.arguments(), sampler=UniformSampler(7), num_sampled=4, reduction="batch",
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    assert repr(module) == (
        "NoiseContrastiveLoss(\n  num_sampled=4, num_splits=1, remove_accidental_hits=False, log_norm=0.0, "
        "reduction='batch'\n  (sampler): UniformSampler(num_labels=7)\n)"
    )
    for other in (module, pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert repr(other) == repr(module)
        assert torch.equal(other(*example.arguments(), generator=torch.Generator().manual_seed(3)), expected)
    with_norm = NoiseContrastiveLoss(**example.options, log_norm=0.7, remove_accidental_hits=True)
    assert torch.equal(
        with_norm(*example.arguments()),
        noise_contrastive(
            *example.arguments(), **example.options, log_norm=0.7, remove_accidental_hits=True, reduction="batch"
        ),
    )  # fmt: skip


@pytest.mark.parametrize(("changes", "error", "argument", "message", "fields"), BAD_INPUTS)
def test_bad_input(
    changes: dict[str, Any], error: type[SeqtrainError], argument: str, message: str, fields: dict[str, Any]
) -> None:
    check_bad_input(noise_contrastive, changes, error, argument, message, fields)


@pytest.mark.parametrize("options", [{"reduction": "mean"}, {"num_sampled": 0}, {"num_splits": -1}])
def test_options_are_checked_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        NoiseContrastiveLoss(UniformSampler(7), **options)
    assert caught.value.argument in options
