from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seqtrain.data import Audio, FeatureCache, LogMel, Utterance, write_audio
from seqtrain.errors import ArgumentError, AudioError, DataError


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def test_shape_mean_and_scale() -> None:
    features = LogMel(sample_rate=8000)(Audio(noise(8000), 8000))
    assert features.shape == (100, 40)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.mean(dim=0), torch.zeros(40), atol=1e-5, rtol=0)
    halved = LogMel(sample_rate=8000, scale=6.0)(Audio(noise(8000), 8000))
    torch.testing.assert_close(2 * halved, features)


def test_the_same_samples_give_the_same_features() -> None:
    extractor = LogMel(sample_rate=8000)
    assert torch.equal(extractor(Audio(noise(4000), 8000)), extractor(Audio(noise(4000), 8000)))


def test_loudness_does_not_matter() -> None:
    extractor = LogMel(sample_rate=8000)
    quiet, loud = (extractor(Audio(noise(4000) * factor, 8000)) for factor in (0.5, 2.0))
    torch.testing.assert_close(quiet, loud, atol=1e-3, rtol=0)


def test_a_tone_is_in_the_bin_of_its_frequency() -> None:
    time = np.arange(8000) / 8000
    bins = []
    for frequency in (300, 1000, 3000):
        tone = (np.sin(2 * np.pi * frequency * time) * (time > 0.5)).astype(np.float32)
        features = LogMel(sample_rate=8000)(Audio(tone + 1e-4 * noise(8000), 8000))
        bins.append(int(features[60:].mean(dim=0).argmax()))
    assert bins == sorted(bins)
    assert len(set(bins)) == 3


def test_wrong_rate_and_too_short() -> None:
    with pytest.raises(ArgumentError, match="sampled at 16000 Hz, but the features are set up for 8000 Hz"):
        LogMel(sample_rate=8000)(Audio(noise(100), 16000))
    with pytest.raises(ArgumentError, match=r"lasts 1\.2 ms, too short for one frame"):
        LogMel(sample_rate=8000)(Audio(noise(10), 8000))


class Counting:
    fingerprint = "counting"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, audio: Audio) -> torch.Tensor:
        self.calls += 1
        return torch.full((3, 2), float(len(audio.samples)))


def utterance(path: Path, samples: int = 100) -> Utterance:
    write_audio(path, noise(samples), 8000)
    return Utterance("u1", path, "hello", samples / 8000)


def test_the_cache_computes_once_and_notices_new_recordings(tmp_path: Path) -> None:
    extractor = Counting()
    cache = FeatureCache(tmp_path / "cache", extractor)
    first = utterance(tmp_path / "a.wav")
    assert torch.equal(cache(first), cache(first))
    assert extractor.calls == 1
    assert cache(utterance(tmp_path / "a.wav", samples=200))[0, 0] == 200
    assert extractor.calls == 2
    seen: list[int] = []
    assert len(cache.load([first, first], progress=seen.append)) == 2
    assert seen == [1, 2]


def test_settings_have_caches_of_their_own(tmp_path: Path) -> None:
    spoken = utterance(tmp_path / "a.wav", samples=8000)
    for bins in (40, 20):
        features = FeatureCache(tmp_path / "cache", LogMel(sample_rate=8000, num_bins=bins))(spoken)
        assert features.shape == (100, bins)


def test_a_broken_cache_file_is_named(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache", Counting())
    spoken = utterance(tmp_path / "a.wav")
    cache(spoken)
    (path,) = (tmp_path / "cache").rglob("*.npy")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(
        DataError, match=r"cached features .*\.npy of utterance u1 are broken .*delete them"
    ) as caught:
        cache(spoken)
    assert caught.value.path == str(path)


def test_a_bad_recording_is_named(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache", LogMel(sample_rate=8000))
    with pytest.raises(AudioError, match=r"gone\.wav \(utterance u2\): No such file"):
        cache(Utterance("u2", tmp_path / "gone.wav", "", 1.0))
    with pytest.raises(AudioError, match=r"a\.wav \(utterance u1\): the recording lasts 1\.2 ms"):
        cache(utterance(tmp_path / "a.wav", samples=10))
