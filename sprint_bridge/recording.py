"""The file of a recording: what a client asked of a service, and what it was answered, as messages of the protocol.

    8 bytes  "SQTREC", 1A, 0A
    u16      version, 1
    records, one after the other:
        u8   kind (`Kind`)
        u32  number of parts
        u32  CRC-32 of the parts
        u64  length of each part
        the parts

Numbers are little endian. The first record says which server it was; the last one, END, how many records came before
it and the SHA-256 of all the bytes before it: a file without it isn't whole. Parts are messages of `aligner.proto` in
their binary form, and raw bytes; nothing is ever unpickled. Each length is held against what the file still has before
memory is taken for it.

    SERVER      GetServerInfoResponse, GetLabelInventoryResponse (header and all labels)
    AUTOMATA    GetAutomataRequest, GetAutomataResponse
    ALIGNMENTS  GetAlignmentsRequest, GetAlignmentsResponse …
    FORCED      ScoresHeader, SHA-256 of each segment's scores (32 bytes each), GetAlignmentsResponse …
    LOSSES      ScoresHeader, SHA-256 of each segment's scores, LossesHeader, the signals as they were sent
    END         u64 number of records, SHA-256
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple

from seqtrain.errors import DataError

__all__ = ["Kind", "Record", "RecordingWriter", "read_records"]

_MAGIC = b"SQTREC\x1a\n"
_VERSION = struct.Struct("<H")
_RECORD = struct.Struct("<BII")
_LENGTH = struct.Struct("<Q")
_THIS_VERSION = 1
_END_SIZE = 8 + 32


class Kind(IntEnum):
    """What a record holds."""

    SERVER = 1
    AUTOMATA = 2
    ALIGNMENTS = 3
    FORCED = 4
    LOSSES = 5
    END = 255


class Record(NamedTuple):
    """One record, and where in its file it begins."""

    kind: Kind
    parts: tuple[bytes, ...]
    position: int


class RecordingWriter:
    """Writes `path` by way of `path.part`, which becomes `path` when it is whole; not safe between threads.

    Raises:
        DataError: it can't be written, or `path` exists: a recording is never written over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".part")
        if path.exists():
            raise DataError(f"{path} exists; a recording is never written over", path=str(path))
        self._hash = hashlib.sha256()
        self._count = 0
        self._error: DataError | None = None
        try:
            self._file: BinaryIO = self.partial.open("xb")
        except OSError as error:
            raise DataError(
                f"{self.partial} can't be written: {error.strerror}", path=str(self.partial)
            ) from error
        self._put(_MAGIC + _VERSION.pack(_THIS_VERSION))

    def write(self, kind: Kind, parts: Sequence[bytes]) -> None:
        """Appends a record; what was appended can be read also when this process is killed."""
        self._put(_encode(kind, parts))
        self._count += 1

    def close(self) -> None:
        """Completes the file."""
        self._put(_encode(Kind.END, [_LENGTH.pack(self._count) + self._hash.digest()]))
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            self.partial.rename(self.path)
        except OSError as error:
            raise self._failed(error) from error

    def discard(self) -> None:
        """Removes what was written."""
        with contextlib.suppress(OSError):
            self._file.close()
        self.partial.unlink(missing_ok=True)

    def _put(self, content: bytes) -> None:
        if self._error is not None:
            raise self._error  # behind half a record nothing can be read
        try:
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error
        self._hash.update(content)

    def _failed(self, error: OSError) -> DataError:
        self._error = DataError(f"{self.partial} can't be written: {error.strerror}", path=str(self.partial))
        with contextlib.suppress(OSError):
            self._file.close()
        return self._error


def _encode(kind: Kind, parts: Sequence[bytes]) -> bytes:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    lengths = b"".join(_LENGTH.pack(len(part)) for part in parts)
    return b"".join([_RECORD.pack(kind, len(parts), checksum), lengths, *parts])


def read_records(path: Path, *, recover: bool = False) -> Iterator[Record]:
    """The records of a file, END aside.

    Args:
        path: the file.
        recover: takes a file that isn't whole, as one whose recorder was killed: the records before the first that is
            cut off.

    Raises:
        DataError: it can't be read, isn't a recording, is of a newer version, is damaged, or isn't whole; says where.
    """
    try:
        with path.open("rb") as file:
            yield from _records(file, path, recover)
    except OSError as error:
        raise DataError(f"recording {path} can't be read: {error.strerror}", path=str(path)) from error


class _TruncatedError(Exception):
    """The file ends inside a record."""


def _records(file: BinaryIO, path: Path, recover: bool) -> Iterator[Record]:
    def damaged(position: int, what: str) -> DataError:
        return DataError(f"recording {path}, byte {position}: {what}", path=str(path))

    size = os.fstat(file.fileno()).st_size
    head = file.read(len(_MAGIC) + _VERSION.size)
    if head[: len(_MAGIC)] != _MAGIC or len(head) < len(_MAGIC) + _VERSION.size:
        raise damaged(0, "not a recording of an aligner service")
    (version,) = _VERSION.unpack(head[len(_MAGIC) :])
    if version != _THIS_VERSION:
        raise damaged(len(_MAGIC), f"version {version}; this reads version {_THIS_VERSION}")
    digest = hashlib.sha256(head)
    count = 0
    while True:
        position = file.tell()
        try:
            number, parts, raw = _read_record(file, size)
        except _TruncatedError:
            if recover:
                return
            raise damaged(
                position, f"cut off after {count} records; --recover uses those that are whole"
            ) from None
        except ValueError as error:
            raise damaged(position, str(error)) from error
        if number not in set(Kind):
            raise damaged(position, f"a record of kind {number}, which isn't known")
        kind = Kind(number)
        if kind is Kind.END:
            (end,) = parts if len(parts) == 1 else (b"",)
            if end != _LENGTH.pack(count) + digest.digest():
                raise damaged(position, f"the {count} records aren't those that were written")
            if file.tell() != size:
                raise damaged(file.tell(), "there are bytes behind the end")
            return
        for piece in raw:
            digest.update(piece)
        count += 1
        yield Record(kind, parts, position)


def _read_record(file: BinaryIO, size: int) -> tuple[int, tuple[bytes, ...], list[bytes]]:
    """Kind and parts of the next record, and its bytes; ValueError where it is damaged."""

    def take(length: int) -> bytes:
        if length > size - file.tell():
            raise _TruncatedError
        return file.read(length)

    head = take(_RECORD.size)
    kind, count, checksum = _RECORD.unpack(head)
    lengths = take(count * _LENGTH.size)
    parts = tuple(take(length) for (length,) in _LENGTH.iter_unpack(lengths))
    found = 0
    for part in parts:
        found = zlib.crc32(part, found)
    if found != checksum:
        raise ValueError("a record whose checksum doesn't fit")
    return kind, parts, [head, lengths, *parts]
