"""Features on disk, computed once."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from seqtrain.data.audio import Audio, read_audio
from seqtrain.data.utterance import Utterance
from seqtrain.errors import ArgumentError, AudioError, DataError
from seqtrain.files import replace_file

__all__ = ["FeatureCache", "FeatureExtractor"]


class FeatureExtractor(Protocol):
    """Turns a recording into features (T, F) float32; `fingerprint` changes whenever its settings do."""

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, audio: Audio) -> torch.Tensor: ...


class FeatureCache:
    """Features by utterance: computed on the first access, then read from `directory`.

    A file's name holds the extractor's fingerprint and the recording's path, size and time of change, so that
    neither a new setting nor a new recording ever meets old features.
    """

    def __init__(self, directory: str | Path, extractor: FeatureExtractor) -> None:
        self.directory = Path(directory)
        self.extractor = extractor

    def __call__(self, utterance: Utterance) -> torch.Tensor:
        """Features (T, F) float32 of one utterance.

        Raises:
            AudioError: the recording is missing, broken or too short.
            DataError: a cached file is broken (names the file to delete).
        """
        path = self._path(utterance)
        if path.is_file():
            try:
                return torch.from_numpy(np.load(path, allow_pickle=False))
            except (ValueError, EOFError, OSError) as error:
                raise DataError(
                    f"cached features {path} of utterance {utterance.id} are broken ({error}); delete them",
                    path=str(path),
                    utterance=utterance.id,
                ) from error
        try:
            features = self.extractor(read_audio(utterance.audio, utterance=utterance.id))
        except ArgumentError as error:
            raise AudioError(
                f"audio file {utterance.audio} (utterance {utterance.id}): {error}",
                path=str(utterance.audio),
                utterance=utterance.id,
            ) from error
        buffer = io.BytesIO()
        np.save(buffer, features.numpy(), allow_pickle=False)
        replace_file(path, buffer.getvalue())
        return features

    def load(
        self, utterances: list[Utterance], *, progress: Callable[[int], None] | None = None
    ) -> list[torch.Tensor]:
        """Features of all `utterances`, in order, kept in memory; `progress` is told how many are done."""
        features = []
        for done, utterance in enumerate(utterances, start=1):
            features.append(self(utterance))
            if progress is not None:
                progress(done)
        return features

    def _path(self, utterance: Utterance) -> Path:
        try:
            status = utterance.audio.stat()
        except OSError as error:
            raise AudioError(
                f"audio file {utterance.audio} (utterance {utterance.id}): {error.strerror}",
                path=str(utterance.audio),
                utterance=utterance.id,
            ) from error
        key = f"{utterance.audio.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
        digest = hashlib.sha256(key.encode()).hexdigest()[:24]
        return self.directory / self.extractor.fingerprint / f"{digest}.npy"
