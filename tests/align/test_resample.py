from __future__ import annotations

import numpy as np
import pytest

from seqtrain.align.resample import resample
from seqtrain.errors import ArgumentError


@pytest.mark.parametrize(("source", "target"), [(8000, 16000), (16000, 8000), (22050, 16000), (8000, 8000)])
@pytest.mark.parametrize("count", [800, 801])
def test_a_tone_is_the_same_tone_at_the_other_rate(source: int, target: int, count: int) -> None:
    # A whole number of periods in the recording, so that it is periodic as the transform takes it.
    periods = 37
    phase = 2 * np.pi * periods / count
    tone = (0.5 * np.cos(phase * np.arange(count) + 0.3)).astype(np.float32)
    converted = resample(tone, source, target)
    assert converted.dtype == np.float32
    assert len(converted) == round(count * target / source)
    expected = 0.5 * np.cos(2 * np.pi * periods * np.arange(len(converted)) / len(converted) + 0.3)
    np.testing.assert_allclose(converted, expected, atol=1e-6)


@pytest.mark.parametrize("count", [64, 65])
def test_doubling_and_halving_gives_back_the_samples(count: int) -> None:
    samples = np.random.default_rng(0).standard_normal(count).astype(np.float32)
    np.testing.assert_allclose(resample(samples, 8000, 16000)[::2], samples, atol=1e-5)
    np.testing.assert_allclose(resample(resample(samples, 8000, 16000), 16000, 8000), samples, atol=1e-5)


def test_what_the_lower_rate_cannot_hold_is_gone() -> None:
    high = np.cos(np.pi * 0.75 * np.arange(800)).astype(np.float32)
    np.testing.assert_allclose(resample(high, 16000, 8000), 0.0, atol=1e-6)


def test_nothing_and_bad_rates() -> None:
    assert resample(np.zeros(0, dtype=np.float32), 8000, 16000).shape == (0,)
    with pytest.raises(ArgumentError, match="target_rate must be positive, got 0"):
        resample(np.zeros(4, dtype=np.float32), 8000, 0)
