"""Reading recordings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seqtrain.errors import AudioError, MissingDependencyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Audio", "audio_duration", "read_audio", "write_audio"]


@dataclass(frozen=True)
class Audio:
    """`samples` (N,) float32 in [-1, 1], one channel; `sample_rate` in hertz."""

    samples: NDArray[np.float32]
    sample_rate: int

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate


def read_audio(path: str | Path, *, sample_rate: int | None = None, utterance: str | None = None) -> Audio:
    """Reads a single-channel recording (WAV, FLAC, OGG, MP3: what libsndfile reads).

    Args:
        path: the file.
        sample_rate: the rate that the caller needs, in hertz; another one is an error (nothing is resampled
            here).
        utterance: the utterance's id, for error messages.

    Raises:
        AudioError: the file is missing, broken, truncated, empty, has several channels, another rate, or
            holds NaN or infinite samples. Names the file and the reason.
        MissingDependencyError: soundfile isn't installed.
    """
    try:
        import soundfile
    except ImportError as error:
        raise MissingDependencyError("soundfile", extra="recipes") from error

    path = Path(path)
    if not path.is_file():
        raise _failure(path, utterance, "the file doesn't exist")
    try:
        with soundfile.SoundFile(path) as file:
            expected, rate, channels = file.frames, file.samplerate, file.channels
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise _failure(path, utterance, f"can't be decoded: {error}") from error

    if channels != 1:
        raise _failure(path, utterance, f"has {channels} channels; one is needed (convert it, or pick one)")
    if len(samples) != expected:
        raise _failure(path, utterance, f"is truncated: {len(samples)} of {expected} samples are there")
    if len(samples) == 0:
        raise _failure(path, utterance, "holds no samples")
    if sample_rate is not None and rate != sample_rate:
        raise _failure(path, utterance, f"is sampled at {rate} Hz, {sample_rate} Hz are needed")
    if not np.isfinite(samples).all():
        raise _failure(path, utterance, "holds NaN or infinite samples")
    return Audio(samples=np.ascontiguousarray(samples[:, 0]), sample_rate=int(rate))


def audio_duration(path: str | Path, *, utterance: str | None = None) -> float:
    """Length of a recording in seconds, from its header alone.

    Raises:
        AudioError: the file is missing or broken.
        MissingDependencyError: soundfile isn't installed.
    """
    try:
        import soundfile
    except ImportError as error:
        raise MissingDependencyError("soundfile", extra="recipes") from error

    path = Path(path)
    if not path.is_file():
        raise _failure(path, utterance, "the file doesn't exist")
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise _failure(path, utterance, f"can't be decoded: {error}") from error
    return float(info.frames / info.samplerate)


def write_audio(path: str | Path, samples: NDArray[np.float32], sample_rate: int) -> None:
    """Writes samples (N,) in [-1, 1] as a WAV file of 16-bit integers.

    Raises:
        MissingDependencyError: soundfile isn't installed.
    """
    try:
        import soundfile
    except ImportError as error:
        raise MissingDependencyError("soundfile", extra="recipes") from error

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, sample_rate, subtype="PCM_16", format="WAV")


def _failure(path: Path, utterance: str | None, reason: str) -> AudioError:
    name = f" (utterance {utterance})" if utterance is not None else ""
    return AudioError(f"audio file {path}{name}: {reason}", path=str(path), utterance=utterance)
