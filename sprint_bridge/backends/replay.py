"""A recording as an engine: the answers of a server that isn't there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from seqtrain.aligner.v1 import aligner_pb2
from seqtrain.errors import SeqtrainError, UnknownSegmentError
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.lexicon import LabelInventory
from sprint_bridge.backends.base import (
    BatchAlignments,
    BatchAutomata,
    BatchLosses,
    Capability,
    Orthography,
    Segment,
)
from sprint_bridge.recorded import Recording, ScoredKey, read_recording, scores_digest

__all__ = ["ReplayBackend", "ReplayBackendConfig", "load_replay_backend"]

K = TypeVar("K")
A = TypeVar("A")


@dataclass(frozen=True)
class ReplayBackendConfig:
    """A recording by `sprint-bridge record`.

    Attributes:
        recording: the file.
        recover: whether a file that isn't whole is taken.
    """

    recording: Path
    recover: bool = False


class ReplayBackend:
    """Answers as the recorded server did, with its digests and its labels; an item that isn't in the recording is an
    unknown segment. Losses and forced alignments are those of the very scores that were sent then.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        known = {aligner_pb2.Capability.Value(f"CAPABILITY_{able.name}"): able for able in Capability}
        self._capabilities = frozenset(
            known[number] for number in recording.info.capabilities if number in known
        )

    @property
    def name(self) -> str:
        return f"replay of {self._recording.info.backend}"

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._capabilities

    @property
    def inventory(self) -> LabelInventory:
        return self._recording.inventory

    @property
    def config_digest(self) -> str:
        return self._recording.info.config_digest

    def automata(self, items: Sequence[Segment | Orthography]) -> BatchAutomata:
        answers: list[Fsa | SeqtrainError] = [
            _found(self._recording.automata, item, item.text if isinstance(item, Orthography) else item.name)
            for item in items
        ]
        automata = FsaBatch.from_list([answer for answer in answers if isinstance(answer, Fsa)])
        return BatchAutomata(automata, _errors(answers))

    def alignments(self, segments: Sequence[str]) -> BatchAlignments:
        return _alignments([_found(self._recording.alignments, name, name) for name in segments])

    def align(self, segments: Sequence[str], scores: Sequence[NDArray[np.float32]]) -> BatchAlignments:
        return _alignments(
            [
                _found(self._recording.forced, key, key.segment, " with these scores")
                for key in _keys(segments, scores)
            ]
        )

    def losses(self, segments: Sequence[str], log_posteriors: Sequence[NDArray[np.float32]]) -> BatchLosses:
        answers = [
            _found(self._recording.losses, key, key.segment, " with these scores")
            for key in _keys(segments, log_posteriors)
        ]
        losses = np.array(
            [np.inf if isinstance(answer, SeqtrainError) else answer.loss for answer in answers],
            dtype=np.float64,
        )
        signals = tuple(
            np.zeros_like(rows, dtype=np.float32) if isinstance(answer, SeqtrainError) else answer.signal
            for answer, rows in zip(answers, log_posteriors, strict=True)
        )
        return BatchLosses(losses, signals, _errors(answers))

    def close(self) -> None:
        """Nothing was started."""


def _keys(segments: Sequence[str], scores: Sequence[NDArray[np.float32]]) -> list[ScoredKey]:
    return [ScoredKey(name, scores_digest(rows)) for name, rows in zip(segments, scores, strict=True)]


def _found(
    answers: Mapping[K, A | SeqtrainError], key: K, name: str, how: str = ""
) -> A | UnknownSegmentError | SeqtrainError:
    answer = answers.get(key)
    if answer is None:
        return UnknownSegmentError(f"not in the recording{how}", utterance=name)
    return answer


def _errors(answers: Sequence[object]) -> tuple[SeqtrainError | None, ...]:
    return tuple(answer if isinstance(answer, SeqtrainError) else None for answer in answers)


def _alignments(answers: Sequence[NDArray[np.int32] | SeqtrainError]) -> BatchAlignments:
    none = np.zeros(0, dtype=np.int32)
    return BatchAlignments(
        tuple(none if isinstance(answer, SeqtrainError) else answer for answer in answers), _errors(answers)
    )


def load_replay_backend(config: ReplayBackendConfig) -> ReplayBackend:
    """Reads the recording.

    Raises:
        DataError: as `read_recording`.
    """
    return ReplayBackend(read_recording(config.recording, recover=config.recover))
