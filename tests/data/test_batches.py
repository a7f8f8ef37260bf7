from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqtrain.data import (
    Augmentation,
    Dataset,
    DurationBatches,
    Utterance,
    generator,
    spec_augment,
    time_warp,
)
from seqtrain.errors import ArgumentError


@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=60),
    max_frames=st.integers(1, 3000),
    seed=st.integers(0, 100),
    epoch=st.integers(0, 5),
)
@settings(max_examples=100, deadline=None)
def test_an_epoch_has_each_utterance_once_within_the_bound(
    lengths: list[int], max_frames: int, seed: int, epoch: int
) -> None:
    batches = DurationBatches(lengths, max_frames=max_frames, seed=seed).epoch(epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert batch
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= max_frames


def test_epochs_differ_and_repeat() -> None:
    lengths = torch.randint(50, 400, (200,), generator=generator(0)).tolist()
    first = DurationBatches(lengths, max_frames=2000, seed=3)
    again = DurationBatches(lengths, max_frames=2000, seed=3)
    assert first.epoch(4) == again.epoch(4)
    assert first.epoch(4) != first.epoch(5)
    assert first.epoch(4) != DurationBatches(lengths, max_frames=2000, seed=4).epoch(4)
    assert {frozenset(b) for b in first.epoch(4)} != {frozenset(b) for b in first.epoch(5)}


def test_batches_have_little_padding() -> None:
    lengths = torch.randint(50, 400, (500,), generator=generator(1)).tolist()
    batches = DurationBatches(lengths, max_frames=3000, seed=1).epoch(0)
    padded = sum(len(b) * max(lengths[i] for i in b) for b in batches)
    assert padded < 1.2 * sum(lengths)


@pytest.mark.parametrize(
    ("lengths", "options", "argument"),
    [
        ([], {}, "lengths"),
        ([3, 0], {}, "lengths"),
        ([3], {"max_frames": 0}, "max_frames"),
        ([3], {"jitter": 1.0}, "jitter"),
    ],
)
def test_what_cannot_be_split(lengths: list[int], options: dict[str, float], argument: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        DurationBatches(lengths, **{"max_frames": 10, "seed": 1, **options})
    assert caught.value.argument == argument


def dataset() -> Dataset:
    utterances = [Utterance(f"u{i}", Path(__file__), "", 1.0) for i in range(3)]
    return Dataset(utterances, [torch.randn(length, 4) for length in (300, 120, 200)])


def test_a_batch_is_padded_with_zeros() -> None:
    data = dataset()
    batch = data.batch([1, 0])
    assert batch.tags == ("u1", "u0")
    assert batch.lengths.tolist() == [120, 300]
    assert batch.features.shape == (2, 300, 4)
    assert torch.equal(batch.features[0, :120], data.features[1])
    assert not batch.features[0, 120:].any()


def test_augmentation_depends_on_purpose_and_utterance_alone() -> None:
    data, augmentation = dataset(), Augmentation()
    torch.manual_seed(1)
    first = data.batch([0, 1], augmentation=augmentation, seed=5, purpose=("ctc", 3))
    torch.manual_seed(2)
    other = data.batch([1, 2], augmentation=augmentation, seed=5, purpose=("ctc", 3))
    length = int(first.lengths[1])
    assert torch.equal(first.features[1, :length], other.features[0, :length])
    later = data.batch([0, 1], augmentation=augmentation, seed=5, purpose=("ctc", 4))
    assert later.lengths.tolist() != first.lengths.tolist() or not torch.equal(later.features, first.features)


def test_features_for_every_utterance() -> None:
    with pytest.raises(ArgumentError, match="1 utterances, but features of 0"):
        Dataset([Utterance("u", Path(__file__), "", 1.0)], [])


def test_time_warp_keeps_what_is_linear_in_time() -> None:
    ramp = torch.linspace(0, 1, 101)[:, None].expand(-1, 3)
    for factor in (0.9, 1.0, 1.1):
        warped = time_warp(ramp, factor)
        assert warped.shape == (round(101 * factor), 3)
        slope = warped[6:-5] - warped[5:-6]
        torch.testing.assert_close(slope, torch.full_like(slope, 0.01 * 101 / len(warped)), atol=1e-5, rtol=0)
    assert time_warp(ramp[:1], 0.1).shape == (1, 3)
    with pytest.raises(ArgumentError, match="must be positive"):
        time_warp(ramp, 0.0)


def test_masks_are_within_their_bounds_and_the_original_stays() -> None:
    features = torch.ones(600, 40)
    for seed in range(20):
        masked = spec_augment(
            features,
            generator=generator(seed),
            frequency_masks=2,
            frequency_width=6,
            frames_per_time_mask=120,
            time_width=12,
        )
        assert int((masked == 0).all(dim=0).sum()) <= 12
        assert int((masked == 0).all(dim=1).sum()) <= 60
        assert set(masked.unique().tolist()) <= {0.0, 1.0}
    assert features.all()


@pytest.mark.parametrize("name", ["warp", "frequency_masks", "time_width"])
def test_augmentation_refuses_negative_settings(name: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Augmentation(**{name: -1})
    assert caught.value.argument == name
