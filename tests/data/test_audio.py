from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from seqtrain.data import audio_duration, read_audio, write_audio
from seqtrain.errors import AudioError, MissingDependencyError


def tone(samples: int = 800) -> np.ndarray:
    return (0.5 * np.sin(np.arange(samples) / 5)).astype(np.float32)


def test_samples_are_read_as_written(tmp_path: Path) -> None:
    write_audio(tmp_path / "x" / "a.wav", tone(), 8000)
    audio = read_audio(tmp_path / "x" / "a.wav", sample_rate=8000)
    assert audio.sample_rate == 8000
    assert audio.samples.dtype == np.float32
    assert audio.duration == audio_duration(tmp_path / "x" / "a.wav") == 0.1
    np.testing.assert_allclose(audio.samples, tone(), atol=1 / 32768)


def test_a_missing_file(tmp_path: Path) -> None:
    for function in (read_audio, audio_duration):
        with pytest.raises(AudioError) as caught:
            function(tmp_path / "no.wav", utterance="u7")
        assert str(caught.value) == f"audio file {tmp_path / 'no.wav'} (utterance u7): the file doesn't exist"
        assert (caught.value.path, caught.value.utterance) == (str(tmp_path / "no.wav"), "u7")


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not a recording at all" * 10])
def test_a_broken_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    for function in (read_audio, audio_duration):
        with pytest.raises(AudioError, match=r"broken\.wav \(utterance u1\): can't be decoded: ."):
            function(path, utterance="u1")


def test_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 20000), 8000)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(
        AudioError, match=r"cut\.flac: (is truncated: \d+ of 20000 samples are there|can't be decoded)"
    ):
        read_audio(path)


@pytest.mark.parametrize(
    ("samples", "rate", "reason"),
    [
        (np.zeros((100, 2), dtype=np.float32), 8000, "has 2 channels; one is needed"),
        (np.zeros(0, dtype=np.float32), 8000, "holds no samples"),
        (tone(), 16000, "is sampled at 16000 Hz, 8000 Hz are needed"),
        (np.array([0.0, np.nan], dtype=np.float32), 8000, "holds NaN or infinite samples"),
    ],
)
def test_recordings_that_cannot_be_used(tmp_path: Path, samples: np.ndarray, rate: int, reason: str) -> None:
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    with pytest.raises(AudioError, match=reason):
        read_audio(tmp_path / "a.wav", sample_rate=8000)


def test_without_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'seqtrain\[recipes\]'"):
        read_audio(tmp_path / "a.wav")
