"""What a recording knows: the server, and its answers by item."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from seqtrain.aligner.answers import read_alignments, read_automata
from seqtrain.aligner.v1 import aligner_pb2
from seqtrain.aligner.v1.packed_array import PackedArrayError, unpack
from seqtrain.aligner.v1.scores import SCORE_DTYPES
from seqtrain.errors import (
    AlignerError,
    AlignerItemError,
    ArgumentError,
    DataError,
    EngineError,
    InfeasibleError,
    OutOfVocabularyError,
    QuarantinedError,
    SeqtrainError,
    SkippedError,
    UnknownSegmentError,
    WorkerCrashedError,
)
from seqtrain.fsa import Fsa
from seqtrain.lexicon import LabelInventory
from sprint_bridge.backends.base import Orthography, Segment
from sprint_bridge.recording import Kind, Record, read_records

__all__ = ["Recording", "ScoredKey", "item_of", "read_recording", "scores_digest"]

M = TypeVar("M", bound=Message)
A = TypeVar("A")


class ScoredKey(NamedTuple):
    """A segment, and the scores that were sent for it."""

    segment: str
    digest: bytes


class RecordedLoss(NamedTuple):
    """A loss, and its error signal (T, V)."""

    loss: float
    signal: NDArray[np.float32]


@dataclass
class Recording:
    """All of a recording. An answer is the SeqtrainError that says what was wrong, where that was the answer."""

    info: aligner_pb2.GetServerInfoResponse
    inventory: LabelInventory
    automata: dict[Segment | Orthography, Fsa | SeqtrainError] = field(default_factory=dict)
    alignments: dict[str, NDArray[np.int32] | SeqtrainError] = field(default_factory=dict)
    forced: dict[ScoredKey, NDArray[np.int32] | SeqtrainError] = field(default_factory=dict)
    losses: dict[ScoredKey, RecordedLoss | SeqtrainError] = field(default_factory=dict)


class _RecordedInfeasibleError(InfeasibleError):
    """The message of one, as it was."""

    def __init__(self, message: str) -> None:
        SeqtrainError.__init__(self, message)
        self.utterances = ()


_ERRORS: dict[str, Callable[[str, str, Sequence[str]], SeqtrainError]] = {
    "unknown_segment": lambda message, name, words: UnknownSegmentError(message, utterance=name),
    "out_of_vocabulary": lambda message, name, words: OutOfVocabularyError(message, words=words),
    "infeasible": lambda message, name, words: _RecordedInfeasibleError(message),
    "crashed": lambda message, name, words: WorkerCrashedError(message, segment=name),
    "quarantined": lambda message, name, words: QuarantinedError(message, segment=name),
    "skipped": lambda message, name, words: SkippedError(message, segment=name),
}


def scores_digest(scores: NDArray[np.float32]) -> bytes:
    """What a segment's scores (T, V) are known by."""
    rows = np.ascontiguousarray(scores, dtype="<f4")
    return hashlib.sha256(repr(rows.shape).encode() + rows.tobytes()).digest()


def item_of(key: aligner_pb2.ItemKey) -> Segment | Orthography:
    """The item of a request."""
    return Orthography(key.orthography) if key.WhichOneof("key") == "orthography" else Segment(key.segment)


def read_recording(path: Path, *, recover: bool = False) -> Recording:
    """Reads all of a recording; of several answers for an item the last one that isn't an error counts, or the last.

    Args:
        path, recover: as of `read_records`.

    Raises:
        DataError: as `read_records`; or a record doesn't hold what its kind says, or isn't of the server that the file
            begins with.
    """
    recording: Recording | None = None
    for record in read_records(path, recover=recover):
        try:
            if recording is None:
                recording = _server(record)
            else:
                _READERS[record.kind](_Reader(record, recording))
        except (DecodeError, PackedArrayError, ArgumentError, _WrongError, ValueError, KeyError) as error:
            raise DataError(
                f"recording {path}, byte {record.position}: a malformed record: {error}", path=str(path)
            ) from error
        except AlignerError as error:
            message = str(error).partition(": ")[2]
            raise DataError(f"recording {path}, byte {record.position}: {message}", path=str(path)) from error
    if recording is None:
        raise DataError(f"recording {path} has no records", path=str(path))
    return recording


class _WrongError(Exception):
    """A record contradicts itself, or the server that it should be of."""


def _parse(kind: type[M], content: bytes) -> M:
    message = kind()
    message.ParseFromString(content)
    return message


def _server(record: Record) -> Recording:
    if record.kind is not Kind.SERVER or len(record.parts) != 2:
        raise _WrongError("the first record doesn't say which server it is")
    info = _parse(aligner_pb2.GetServerInfoResponse, record.parts[0])
    answer = _parse(aligner_pb2.GetLabelInventoryResponse, record.parts[1])
    header = answer.header
    inventory = LabelInventory(
        tuple(answer.labels),
        silence=header.silence if header.HasField("silence") else None,
        blank=header.blank if header.HasField("blank") else None,
    )
    if inventory.etag != info.inventory_etag:
        raise _WrongError("its labels aren't those of the server")
    return Recording(info, inventory)


class _Reader:
    """A record on its way into a recording."""

    def __init__(self, record: Record, recording: Recording) -> None:
        self.parts = record.parts
        self.recording = recording

    def check(self, digest: str, etag: str) -> None:
        info = self.recording.info
        if (digest, etag) != (info.config_digest, info.inventory_etag):
            raise _WrongError("it is of another server, or of one with another configuration")

    def part(self, index: int, kind: type[M]) -> M:
        if index >= len(self.parts):
            raise _WrongError(f"it has {len(self.parts)} parts")
        return _parse(kind, self.parts[index])

    def alignments(self, first: int, names: Sequence[str]) -> Iterator[NDArray[np.int32] | SeqtrainError]:
        answers = [_parse(aligner_pb2.GetAlignmentsResponse, part) for part in self.parts[first:]]
        for answer in answers:
            self.check(answer.config_digest, answer.inventory_etag)
        for found in read_alignments(answers, names, target="recording"):
            if isinstance(found, AlignerItemError):
                yield _error(found)
                continue
            if found.size and not 0 <= found.min() <= found.max() < len(self.recording.inventory):
                raise _WrongError("an alignment has a label that the inventory lacks")
            yield found

    def scored(self) -> tuple[aligner_pb2.ScoresHeader, list[ScoredKey]]:
        header = self.part(0, aligner_pb2.ScoresHeader)
        names = list(header.segments)
        if len(self.parts) < 2 or len(self.parts[1]) != 32 * len(names):
            raise _WrongError(f"it doesn't have digests of the scores of {len(names)} segments")
        digests = (self.parts[1][begin : begin + 32] for begin in range(0, 32 * len(names), 32))
        return header, [ScoredKey(name, digest) for name, digest in zip(names, digests, strict=True)]


def _error(error: AlignerItemError) -> SeqtrainError:
    """What the engine had raised, of what a client was told."""
    message = str(error).partition(f": {error.status}: ")[2]
    make = _ERRORS.get(error.status)
    if make is None:
        return EngineError(message, segment=error.segment)
    return make(message, error.segment, error.words)


def _keep(answers: dict[Any, A | SeqtrainError], key: object, answer: A | SeqtrainError) -> None:
    if not isinstance(answer, SeqtrainError) or isinstance(answers.get(key, answer), SeqtrainError):
        answers[key] = answer


def _automata(reader: _Reader) -> None:
    request = reader.part(0, aligner_pb2.GetAutomataRequest)
    answer = reader.part(1, aligner_pb2.GetAutomataResponse)
    reader.check(answer.config_digest, answer.inventory_etag)
    items = [item_of(key) for key in request.items]
    names = [item.text if isinstance(item, Orthography) else item.name for item in items]
    labels = len(reader.recording.inventory)
    for item, found in zip(items, read_automata(answer, names, target="recording"), strict=True):
        if isinstance(found, AlignerItemError):
            _keep(reader.recording.automata, item, _error(found))
            continue
        if found.arcs.numel() and int(found.arcs[:, 2].max()) >= labels:
            raise _WrongError("an automaton has a label that the inventory lacks")
        _keep(reader.recording.automata, item, found)


def _alignments(reader: _Reader) -> None:
    names = list(reader.part(0, aligner_pb2.GetAlignmentsRequest).segments)
    for name, found in zip(names, reader.alignments(1, names), strict=True):
        _keep(reader.recording.alignments, name, found)


def _forced(reader: _Reader) -> None:
    header, keys = reader.scored()
    found = list(reader.alignments(2, list(header.segments)))
    for key, frames, labels in zip(keys, header.num_frames, found, strict=True):
        if not isinstance(labels, SeqtrainError) and len(labels) != frames:
            raise _WrongError(f"{len(labels)} labels for {frames} frames")
        _keep(reader.recording.forced, key, labels)


def _losses(reader: _Reader) -> None:
    header, keys = reader.scored()
    answer = reader.part(2, aligner_pb2.LossesHeader)
    reader.check(answer.config_digest, answer.inventory_etag)
    losses = unpack(answer.losses, name="losses", dtypes=("float64",), shape=(len(keys),))
    dtype = SCORE_DTYPES[header.dtype]
    frames, labels = list(header.num_frames), header.num_labels
    if len(reader.parts) != 4 or min(frames, default=0) < 0 or labels != len(reader.recording.inventory):
        raise _WrongError("its header isn't one of scores of this server")
    if len(reader.parts[3]) != sum(frames) * labels * dtype.itemsize:
        raise _WrongError(f"signals of {len(reader.parts[3])} bytes for {sum(frames)} frames")
    rows = np.frombuffer(reader.parts[3], dtype=dtype).reshape(-1, labels).astype(np.float32)
    ends = list(itertools.accumulate(frames))
    names = {number: name for name, number in aligner_pb2.ItemCode.items()}
    for key, status, loss, end, count in zip(keys, answer.statuses, losses, ends, frames, strict=True):
        if status.code == aligner_pb2.ITEM_CODE_OK:
            recorded: RecordedLoss | SeqtrainError = RecordedLoss(float(loss), rows[end - count : end])
        else:
            code = names.get(status.code, "").removeprefix("ITEM_CODE_").lower()
            make = _ERRORS.get(code)
            recorded = (
                EngineError(status.message, segment=key.segment)
                if make is None
                else make(status.message, key.segment, tuple(status.words))
            )
        _keep(reader.recording.losses, key, recorded)


def _second_server(reader: _Reader) -> None:
    raise _WrongError("a second server")


_READERS: dict[Kind, Callable[[_Reader], None]] = {
    Kind.SERVER: _second_server,
    Kind.AUTOMATA: _automata,
    Kind.ALIGNMENTS: _alignments,
    Kind.FORCED: _forced,
    Kind.LOSSES: _losses,
}
