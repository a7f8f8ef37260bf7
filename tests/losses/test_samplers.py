"""Samplers: what they draw, how often, and the counts they expect."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.errors import ArgumentError, DtypeError, ShapeError
from seqtrain.losses.samplers import (
    FixedUnigramSampler,
    LearnedUnigramSampler,
    LogUniformSampler,
    ReplayedSampler,
    Sample,
    UniformSampler,
)
from tests.fsa.strategies import quick

Samplers = UniformSampler | LogUniformSampler | FixedUnigramSampler | LearnedUnigramSampler

COUNTS = [3.0, 1.0, 0.0, 5.0, 0.5]
DRAWS = 4000


def samplers(num_labels: int) -> list[Samplers]:
    learned = LearnedUnigramSampler(num_labels)
    learned.observe(torch.tensor([0, 0, num_labels - 1]))
    return [
        UniformSampler(num_labels),
        LogUniformSampler(num_labels),
        FixedUnigramSampler(torch.arange(1, num_labels + 1).double()),
        learned,
    ]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_frequency(count: int, probability: float) -> None:
    """Within five standard deviations."""
    deviation = (DRAWS * probability * (1.0 - probability)) ** 0.5
    assert abs(count - DRAWS * probability) <= 5.0 * deviation + 1e-6


@pytest.mark.parametrize("num_labels", [1, 2, 10, 1000])
def test_probabilities(num_labels: int) -> None:
    c = torch.arange(num_labels, dtype=torch.float64)
    uniform, log_uniform, fixed, learned = (sampler.probabilities for sampler in samplers(num_labels))
    torch.testing.assert_close(uniform, torch.full_like(c, 1 / num_labels))
    total = torch.tensor(num_labels + 1, dtype=torch.float64).log()
    torch.testing.assert_close(log_uniform, ((c + 2) / (c + 1)).log() / total, rtol=1e-12, atol=0)
    torch.testing.assert_close(fixed, (c + 1) / (c + 1).sum())
    weights = torch.ones_like(c)
    weights[0] += 2
    weights[-1] += 1
    torch.testing.assert_close(learned, weights / (num_labels + 3))
    for probabilities in (uniform, log_uniform, fixed, learned):
        assert probabilities.dtype == torch.float64
        assert probabilities.sum().item() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("distortion", [0.0, 0.75, 1.0, 2.0])
def test_distortion(distortion: float) -> None:
    weights = torch.tensor(COUNTS, dtype=torch.float64).pow(distortion)
    sampler = FixedUnigramSampler(torch.tensor(COUNTS), distortion=distortion)
    torch.testing.assert_close(sampler.probabilities, weights / weights.sum(), rtol=1e-12, atol=0)
    large = FixedUnigramSampler([1e300 * count for count in COUNTS], distortion=distortion)
    torch.testing.assert_close(large.probabilities, sampler.probabilities, rtol=1e-12, atol=0)


@quick
@given(
    seed=hs.integers(0, 2**32), num_labels=hs.integers(1, 40), share=hs.floats(0, 1), which=hs.integers(0, 3)
)
def test_a_sample_has_distinct_classes_and_their_expected_counts(
    seed: int, num_labels: int, share: float, which: int
) -> None:
    sampler = samplers(num_labels)[which]
    size = max(1, round(share * num_labels))
    sample = sampler.sample(size, generator=generator(seed))
    assert sample.classes.dtype == torch.int64
    assert len(set(sample.classes.tolist())) == size
    assert 0 <= int(sample.classes.min()) <= int(sample.classes.max()) < num_labels
    assert isinstance(sample.tries, int)
    assert sample.tries >= size
    p = sampler.probabilities
    expected = p * size if sample.tries == size else 1.0 - (1.0 - p) ** sample.tries
    counts = sampler.expected_counts(sample, torch.arange(num_labels))
    assert counts.dtype == torch.float64
    torch.testing.assert_close(counts, expected, rtol=1e-10, atol=0)
    shaped = sampler.expected_counts(sample, sample.classes[None, :, None].int())
    assert torch.equal(shaped[0, :, 0], counts[sample.classes])


def test_expected_counts_of_rare_classes_are_exact() -> None:
    """1 - (1 - 1e-18)^n is 0 where computed as it stands."""
    sampler = FixedUnigramSampler([1.0, 1e-18])
    counts = sampler.expected_counts(Sample(torch.tensor([0]), 1000), torch.tensor([0, 1]))
    torch.testing.assert_close(counts, torch.tensor([1.0, 1e-15], dtype=torch.float64), rtol=1e-12, atol=0)


def test_the_draw_is_that_of_drawing_with_replacement() -> None:
    """Ordered triples of distinct classes: p(a) · p(b) / (1 - p(a)) · p(c) / (1 - p(a) - p(b))."""
    sampler = FixedUnigramSampler([6.0, 3.0, 1.0, 2.0])
    p = sampler.probabilities.tolist()
    g = generator(0)
    samples = [sampler.sample(3, generator=g) for _ in range(DRAWS)]
    counts = Counter(tuple(sample.classes.tolist()) for sample in samples)
    for a, b, c in itertools.permutations(range(4), 3):
        assert_frequency(counts[a, b, c], p[a] * p[b] / (1 - p[a]) * p[c] / (1 - p[a] - p[b]))
    # Given the classes, the tries are geometric in each step.
    for a, b, c in ((0, 1, 3), (0, 3, 1)):
        tries = [s.tries for s in samples if s.classes.tolist() == [a, b, c]]
        steps = [1 - p[a], 1 - p[a] - p[b]]
        mean = 1 + sum(1 / step for step in steps)
        variance = sum((1 - step) / step**2 for step in steps)
        assert abs(sum(tries) / len(tries) - mean) <= 5.0 * (variance / len(tries)) ** 0.5


def test_the_number_of_tries_is_geometric() -> None:
    sampler = FixedUnigramSampler([1.0, 1.0])
    g = generator(1)
    counts = Counter(sampler.sample(2, generator=g).tries for _ in range(DRAWS))
    for tries in range(2, 7):
        assert_frequency(counts[tries], 0.5 ** (tries - 1))


def test_all_classes() -> None:
    for sampler in samplers(6):
        assert sorted(sampler.sample(6).classes.tolist()) == list(range(6))


def test_a_single_class() -> None:
    sampler = UniformSampler(1)
    sample = sampler.sample(1)
    assert sample.classes.tolist() == [0]
    assert sample.tries == 1
    assert sampler.expected_counts(sample, torch.tensor([0])).item() == 1.0


def test_hardly_anything_left_to_draw() -> None:
    sampler = FixedUnigramSampler([1.0, 1e-30, 0.0])
    sample = sampler.sample(2, generator=generator(2))
    assert sample.classes.tolist() == [0, 1]
    assert sample.tries > 10**25
    counts = sampler.expected_counts(sample, torch.arange(3))
    assert counts[0].item() == 1.0
    assert 0.0 < counts[1].item() < 1.0
    assert counts[2].item() == 0.0


def test_a_class_of_probability_zero_is_never_drawn() -> None:
    sampler = FixedUnigramSampler(COUNTS)
    g = generator(3)
    assert all(2 not in sampler.sample(4, generator=g).classes.tolist() for _ in range(50))
    with pytest.raises(ArgumentError, match=r"num_sampled must lie in 1 … 4, .* above 0, got 5") as caught:
        sampler.sample(5)
    assert caught.value.argument == "num_sampled"


@pytest.mark.parametrize("num_sampled", [0, 7])
def test_how_many_can_be_drawn(num_sampled: int) -> None:
    for sampler in samplers(6):
        with pytest.raises(ArgumentError, match=rf"1 … 6, .* got {num_sampled}"):
            sampler.sample(num_sampled)


def test_draws_repeat_with_the_generator() -> None:
    for sampler in samplers(50):
        one, two, g = generator(4), generator(4), generator(5)
        first, second = sampler.sample(5, generator=one), sampler.sample(5, generator=two)
        assert torch.equal(first.classes, second.classes)
        assert first.tries == second.tries
        assert not torch.equal(first.classes, sampler.sample(5, generator=one).classes)
        assert not torch.equal(first.classes, sampler.sample(5, generator=g).classes)
        torch.manual_seed(6)
        default = sampler.sample(5)
        torch.manual_seed(6)
        assert torch.equal(sampler.sample(5).classes, default.classes)


def test_a_learned_unigram_observes() -> None:
    sampler = LearnedUnigramSampler(3)
    sampler.observe(torch.tensor([[2, 2], [0, 2]], dtype=torch.int32))
    sampler.observe(torch.tensor([], dtype=torch.int64))
    assert sampler.weights.tolist() == [2.0, 1.0, 4.0]
    for label in (-1, 3):
        with pytest.raises(
            ArgumentError, match=rf"label {label} isn't one of the sampler's 3, 0 … 2"
        ) as caught:
            sampler.observe(torch.tensor([1, label]))
        assert caught.value.argument == "labels"
    with pytest.raises(DtypeError, match=r"must be integers, got torch\.float32"):
        sampler.observe(torch.ones(2))
    assert sampler.weights.tolist() == [2.0, 1.0, 4.0]


def test_only_what_was_learned_is_state() -> None:
    uniform, log_uniform, fixed, learned = samplers(5)
    assert [dict(sampler.state_dict()) for sampler in (uniform, log_uniform, fixed)] == [{}, {}, {}]
    assert set(learned.state_dict()) == {"weights"}
    fresh = LearnedUnigramSampler(5)
    fresh.load_state_dict(learned.state_dict())
    assert torch.equal(fresh.probabilities, learned.probabilities)
    for sampler in (uniform, log_uniform, fixed, learned):
        assert not list(sampler.parameters())
        for other in (copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
            assert torch.equal(other.probabilities, sampler.probabilities)


def test_a_model_in_half_precision_keeps_its_sampler_in_double() -> None:
    for sampler in samplers(5):
        before = sampler.probabilities
        torch.nn.Sequential(sampler).half()
        assert torch.equal(sampler.probabilities, before)
        assert sampler.probabilities.dtype == torch.float64


def test_representations() -> None:
    assert repr(UniformSampler(5)) == "UniformSampler(num_labels=5)"
    assert repr(LogUniformSampler(5)) == "LogUniformSampler(num_labels=5)"
    assert repr(LearnedUnigramSampler(5)) == "LearnedUnigramSampler(num_labels=5)"
    assert repr(FixedUnigramSampler(COUNTS)) == "FixedUnigramSampler(num_labels=5, distortion=1.0)"


@pytest.mark.parametrize("kind", [UniformSampler, LogUniformSampler, LearnedUnigramSampler])
def test_no_labels(kind: type[UniformSampler]) -> None:
    with pytest.raises(ArgumentError, match="num_labels must be at least 1, got 0") as caught:
        kind(0)
    assert caught.value.argument == "num_labels"


@pytest.mark.parametrize(
    ("counts", "distortion", "error", "argument", "message"),
    [
        ([[1.0]], 1.0, ShapeError, "counts", r"shape \(V,\), V ≥ 1, got \(1, 1\)"),
        ([], 1.0, ShapeError, "counts", r"got \(0,\)"),
        ([1.0, -2.0], 1.0, ArgumentError, "counts", r"counts\[1\] = -2\.0 must be finite and 0 at least"),
        ([torch.nan, 1.0], 1.0, ArgumentError, "counts", r"counts\[0\] = nan must be finite"),
        ([1.0, torch.inf], 1.0, ArgumentError, "counts", r"counts\[1\] = inf must be finite"),
        ([0.0, 0.0], 1.0, ArgumentError, "counts", "counts are all 0"),
        (
            [1.0, 0.0],
            -1.0,
            ArgumentError,
            "distortion",
            r"distortion = -1\.0 makes the weight of a class inf",
        ),
        ([1.0, 2.0], torch.nan, ArgumentError, "distortion", "distortion = nan"),
    ],
)
def test_counts(
    counts: list[Any], distortion: float, error: type[ArgumentError], argument: str, message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        FixedUnigramSampler(counts, distortion=distortion)
    assert caught.value.argument == argument


def test_replayed_samples_come_in_turn() -> None:
    counts = torch.tensor([0.5, 1.0, 2.0])
    sampler = ReplayedSampler([torch.tensor([0, 2]), torch.tensor([1, 0], dtype=torch.int32)], counts)
    drawn = [sampler.sample(2) for _ in range(3)]
    assert [sample.classes.tolist() for sample in drawn] == [[0, 2], [1, 0], [0, 2]]
    assert all(sample.classes.dtype == torch.int64 for sample in drawn)
    assert [sample.tries for sample in drawn] == [2, 2, 2]
    expected = sampler.expected_counts(drawn[0], torch.tensor([[2], [0]]))
    assert expected.tolist() == [[2.0], [0.5]]
    assert expected.dtype == torch.float64
    with pytest.raises(
        ArgumentError, match="num_sampled = 3, but the sample to replay has 2 classes"
    ) as caught:
        sampler.sample(3)
    assert caught.value.argument == "num_sampled"


@pytest.mark.parametrize(
    ("samples", "counts", "error", "argument", "message"),
    [
        ([], torch.ones(3), ArgumentError, "samples", "nothing to replay"),
        ([torch.tensor([1.0])], torch.ones(3), DtypeError, "samples", r"samples\[0\] must be integers"),
        ([torch.tensor(1)], torch.ones(3), ShapeError, "samples", r"shape \(S,\), S ≥ 1, got \(\)"),
        (
            [torch.tensor([1]), torch.tensor([], dtype=torch.int64)],
            torch.ones(3),
            ShapeError,
            "samples",
            r"samples\[1\] must have shape \(S,\), S ≥ 1, got \(0,\)",
        ),
        ([torch.tensor([1, 3])], torch.ones(3), ArgumentError, "samples", "has classes 1 … 3, but .* of 3 classes"),
        ([torch.tensor([-1, 2])], torch.ones(3), ArgumentError, "samples", "has classes -1 … 2"),
        ([torch.tensor([1])], torch.ones(3, 1), ShapeError, "expected_counts", r"\(V,\), got \(3, 1\)"),
    ],
)  # fmt: skip
def test_what_can_be_replayed(
    samples: list[torch.Tensor], counts: torch.Tensor, error: type[ArgumentError], argument: str, message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        ReplayedSampler(samples, counts)
    assert caught.value.argument == argument
