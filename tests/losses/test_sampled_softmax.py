"""Sampled softmax: its formula, its gradients, its sampler's part."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain.errors import ArgumentError, SeqtrainError
from seqtrain.losses.sampled_softmax import SampledSoftmaxLoss, sampled_softmax
from seqtrain.losses.samplers import (
    LearnedUnigramSampler,
    LogUniformSampler,
    ReplayedSampler,
    UniformSampler,
)
from tests.fsa.strategies import quick
from tests.losses.sampled_examples import BAD_INPUTS, check_bad_input, check_property, random_batch

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def formula(true: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
    return (true.exp() + sampled.exp().sum(dim=1)).log() - true


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
)
def test_against_the_formula(
    seed: int, batch: int, frames: int, num_splits: int, num_sampled: int, dtype: torch.dtype, remove: bool,
    packed: bool,
) -> None:  # fmt: skip
    example = random_batch(
        seed, batch=batch, frames=frames, num_splits=num_splits, num_sampled=num_sampled, dtype=dtype
    )
    check_property(example, sampled_softmax, formula, remove=remove, packed=packed)


def test_all_classes_without_hits_and_correction_are_softmax_cross_entropy() -> None:
    example = random_batch(0, batch=4, dtype=torch.float64)
    sampler = ReplayedSampler([torch.arange(7)], torch.ones(7))
    loss = sampled_softmax(*example.arguments(), sampler=sampler, num_sampled=7, reduction="sum")
    logits = example.inputs[example.inside] @ example.weight.T + example.bias
    expected = torch.nn.functional.cross_entropy(logits, example.targets[example.inside], reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)


def test_a_frame_whose_samples_are_all_hits() -> None:
    """Nothing competes: loss 0, gradient 0, no NaN."""
    inputs = torch.randn(1, 2, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight, bias = torch.ones(7, 5).requires_grad_(), torch.zeros(7)
    sampler = ReplayedSampler([torch.tensor([3])], torch.ones(7))
    loss = sampled_softmax(
        inputs, weight, bias, torch.tensor([[3, 3]]), sampler=sampler, num_sampled=1, reduction="sum"
    )
    gradients = torch.autograd.grad(loss, (inputs, weight))
    assert loss.item() == 0.0
    assert not gradients[0].any()
    assert not gradients[1].any()


@pytest.mark.parametrize("reduction", ["per_frame", "none", "sum", "batch", "frames"])
@pytest.mark.parametrize("packed", [False, True])
def test_reductions(reduction: str, packed: bool) -> None:
    example = random_batch(1, num_splits=2)
    arguments = example.packed() if packed else example.arguments()
    frames = sampled_softmax(*example.arguments(), **example.options, reduction="per_frame")
    assert frames.shape == example.targets.shape
    assert not frames[~example.inside].any()
    total = frames.sum()
    expected = {
        "per_frame": frames[example.inside] if packed else frames, "none": frames.sum(dim=1), "sum": total,
        "batch": total / 3, "frames": total / int(example.lengths.sum()),
    }[reduction]  # fmt: skip
    loss = sampled_softmax(*arguments, **example.options, reduction=reduction)
    torch.testing.assert_close(loss, expected)
    module = SampledSoftmaxLoss(**example.options, reduction=reduction)
    assert torch.equal(module(*arguments), loss)


@pytest.mark.parametrize("num_splits", [1, 3])
def test_no_utterances_and_no_frames(num_splits: int) -> None:
    weight, bias, sampler = torch.ones(7, 5).requires_grad_(), torch.zeros(7), UniformSampler(7)
    for batch, lengths in ((0, []), (2, [0, 0])):
        inputs = torch.full((batch, 3, 5), torch.nan, requires_grad=True)
        targets = torch.full((batch, 3), -1)
        losses = sampled_softmax(
            inputs, weight, bias, targets, torch.tensor(lengths, dtype=torch.int64), sampler=sampler, num_sampled=2,
            num_splits=num_splits,
        )  # fmt: skip
        assert torch.equal(losses, torch.zeros(batch))
        gradients = torch.autograd.grad(losses.sum(), (inputs, weight))
        assert all(not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("remove", [False, True])
def test_gradcheck(remove: bool) -> None:
    example = random_batch(4, num_splits=2, dtype=torch.float64)
    leaves = [tensor.nan_to_num().requires_grad_() for tensor in example.arguments()[:3]]

    def losses(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return sampled_softmax(
            inputs, weight, bias, example.targets, example.lengths, **example.options, remove_accidental_hits=remove
        )  # fmt: skip

    assert torch.autograd.gradcheck(losses, leaves)


def test_the_frames_of_a_batch_without_lengths_all_count() -> None:
    example = random_batch(5)
    full = torch.full_like(example.lengths, 4)
    inputs, targets = example.inputs.nan_to_num(), example.targets.clamp(min=0)
    without = sampled_softmax(inputs, example.weight, example.bias, targets, **example.options)
    given = sampled_softmax(inputs, example.weight, example.bias, targets, full, **example.options)
    assert torch.equal(without, given)


def test_the_tensors_may_have_different_precisions() -> None:
    example = random_batch(6, dtype=torch.float64)
    inputs, weight, bias, *rest = example.arguments()
    half = inputs.half()
    loss = sampled_softmax(half, weight, bias.float(), *rest, **example.options)
    expected = sampled_softmax(half.double(), weight, bias.float().double(), *rest, **example.options)
    assert loss.dtype == torch.float64
    assert torch.equal(loss, expected)


def test_autocast_leaves_the_loss_in_single_precision() -> None:
    example = random_batch(7)
    expected = sampled_softmax(*example.arguments(), **example.options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sampled_softmax(*example.arguments(), **example.options)
    assert torch.equal(loss, expected)


def test_the_same_generator_state_draws_the_same_classes() -> None:
    example = random_batch(8, batch=8)
    sampler = LogUniformSampler(7)
    losses = [
        sampled_softmax(
            *example.arguments(), sampler=sampler, num_sampled=2, num_splits=3,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (1, 1, 2)
    ]  # fmt: skip
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_a_learned_sampler_observes_labels_in_training_after_each_draw() -> None:
    example = random_batch(9, batch=8)
    labels = example.targets[example.inside]
    sampler = LearnedUnigramSampler(7)
    module = SampledSoftmaxLoss(sampler, num_sampled=3, num_splits=2)
    loss = module(*example.arguments(), generator=torch.Generator().manual_seed(0))
    seen = torch.ones(7, dtype=torch.float64) + labels.bincount(minlength=7)
    assert torch.equal(sampler.weights, seen)
    assert torch.equal(module.state_dict()["sampler.weights"], seen)

    # The same by hand: the second half is drawn for with the first one's labels counted.
    by_hand, generator = LearnedUnigramSampler(7), torch.Generator().manual_seed(0)
    part = len(labels) // 2
    losses = []
    for rows, some in ((slice(0, part), labels[:part]), (slice(part, None), labels[part:])):
        sample = by_hand.sample(3, generator=generator)
        counts = by_hand.expected_counts(sample, torch.arange(7))
        replayed = ReplayedSampler([sample.classes], counts)
        inputs = example.inputs[example.inside][rows]
        losses.append(
            sampled_softmax(
                inputs[None], example.weight, example.bias, some[None], sampler=replayed, num_sampled=3
            )
        )
        by_hand.observe(some)
    torch.testing.assert_close(loss * 8, torch.cat(losses).sum())

    module.eval()(*example.arguments())
    assert torch.equal(sampler.weights, seen)


def test_repr_pickle_and_copies() -> None:
    module = SampledSoftmaxLoss(LearnedUnigramSampler(7), num_sampled=5, reduction="frames")
    assert repr(module) == (
        "SampledSoftmaxLoss(\n  num_sampled=5, num_splits=1, remove_accidental_hits=True, reduction='frames'\n"
        "  (sampler): LearnedUnigramSampler(num_labels=7)\n)"
    )
    example = random_batch(10)
    for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert repr(other) == repr(module)
        other(*example.arguments())
    assert torch.equal(module.sampler.weights, torch.ones(7, dtype=torch.float64))


def test_the_modules_defaults() -> None:
    example = random_batch(11)
    sampler = UniformSampler(7)
    expected = sampled_softmax(
        *example.arguments(), sampler=sampler, num_sampled=4, reduction="batch",
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    module = SampledSoftmaxLoss(sampler, num_sampled=4)
    assert torch.equal(module(*example.arguments(), generator=torch.Generator().manual_seed(3)), expected)
    assert SampledSoftmaxLoss(sampler).num_sampled == 128
    assert not list(module.parameters())
    assert module.state_dict() == {}


@pytest.mark.parametrize(("changes", "error", "argument", "message", "fields"), BAD_INPUTS)
def test_bad_input(
    changes: dict[str, Any], error: type[SeqtrainError], argument: str, message: str, fields: dict[str, Any]
) -> None:
    check_bad_input(sampled_softmax, changes, error, argument, message, fields)


@pytest.mark.parametrize("options", [{"reduction": "mean"}, {"num_sampled": 0}, {"num_splits": -1}])
def test_options_are_checked_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        SampledSoftmaxLoss(UniformSampler(7), **options)
    assert caught.value.argument in options


def test_what_no_frame_looks_at_may_hold_anything() -> None:
    """Weight and bias of classes that are neither a label nor sampled."""
    sampler = ReplayedSampler([torch.tensor([0, 1])], torch.ones(7))
    weight, bias = torch.zeros(7, 5), torch.zeros(7)
    weight[6], bias[5] = torch.nan, torch.inf
    packed = st.Packed(torch.zeros(2, 5), torch.tensor([0, 2]))
    losses = sampled_softmax(packed, weight, bias, torch.tensor([2, 3]), sampler=sampler, num_sampled=2)
    torch.testing.assert_close(losses, 2 * torch.tensor([3.0]).log())
