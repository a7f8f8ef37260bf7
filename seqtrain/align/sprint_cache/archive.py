"""Reading Sprint archives: what every kind of archive offers, and the archive that is one file.

The entries are found when an archive is opened, and read when they are asked for. Nothing that a file says about
itself is trusted: a size is held against the file before a byte is read.
"""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeVar

from seqtrain.align.sprint_cache.layout import (
    END_TAG,
    HEADER,
    MAGIC,
    SIZES,
    SLOT,
    START_TAG,
    TABLE_SIZES,
    U32,
    U64,
)
from seqtrain.errors import DataError

__all__ = ["ATTRIBUTES", "MAX_ENTRY_BYTES", "Archive", "SpArchive", "archive_error"]

ATTRIBUTES = ".attribs"
"""Entry `name + ATTRIBUTES` holds the attributes of entry `name`, as a small XML document."""

MAX_ENTRY_BYTES = 1 << 28
"""The largest entry that is read; a longer one is taken for a broken size or an attack."""

_SEARCH_BYTES = 1 << 16

_Opened = TypeVar("_Opened", bound="Archive")


def archive_error(path: str | Path | None, problem: str, *, entry: str | None = None) -> DataError:
    """What is wrong with an archive, or with one of its entries; without a path, with an alignment from elsewhere."""
    named = ([] if path is None else [f"archive {path}"]) + ([] if entry is None else [f"entry {entry!r}"])
    return DataError(
        f"{', '.join(named) or 'alignment'}: {problem}",
        path=None if path is None else str(path),
        utterance=entry,
    )


class Archive(ABC):
    """Named entries; a context manager, which closes what it has opened."""

    path: Path

    @property
    @abstractmethod
    def entries(self) -> tuple[str, ...]:
        """The names of all entries, in the archive's order."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of an entry, decompressed.

        Raises:
            DataError: there is no such entry, or it is broken.
        """

    @abstractmethod
    def __contains__(self, name: object) -> bool:
        """Whether there is an entry of this name."""

    @abstractmethod
    def close(self) -> None:
        """Closes what was opened."""

    def origin(self, name: str) -> Path:
        """The file or folder that holds an entry, for errors."""
        return self.path

    @property
    def damage(self) -> str | None:
        """What was left out when the archive was opened with `recover`; None where nothing was."""
        return None

    @property
    def segments(self) -> tuple[str, ...]:
        """The names of all entries other than attributes."""
        return tuple(name for name in self.entries if not name.endswith(ATTRIBUTES))

    def has_segment(self, name: object) -> bool:
        """Whether there is an entry of this name, and it isn't attributes."""
        return name in self and not str(name).endswith(ATTRIBUTES)

    def attributes(self, name: str) -> bytes | None:
        """The attributes of an entry as XML, or None where it has none.

        Raises:
            DataError: they are broken.
        """
        return self.read(name + ATTRIBUTES) if name + ATTRIBUTES in self else None

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __enter__(self: _Opened) -> _Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _Entry:
    """Where an entry's `size` stands, and what it says."""

    position: int
    size: int
    compressed: int

    @property
    def stored(self) -> int:
        """Bytes in the file."""
        return self.compressed or self.size

    @property
    def end(self) -> int:
        """Behind the end tag."""
        return self.position + SIZES.size + self.stored + len(END_TAG)


class SpArchive(Archive):
    """An archive that is one file. Threads may share it.

    Args:
        path: the file.
        recover: find the entries by walking over them, whether there is a table or not, and leave out what follows the
            last whole one; `damage` then says what that was. Of entries of one name the last one counts.
        encoding: of the names.
        max_entry_bytes: the largest entry to read.

    Raises:
        DataError: the file can't be read, is no archive, or is broken: its table doesn't fit it, a name stands twice,
            or there is no table and the last entry isn't whole.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        recover: bool = False,
        encoding: str = "utf-8",
        max_entry_bytes: int = MAX_ENTRY_BYTES,
    ) -> None:
        self.path = Path(path)
        self._recover = recover
        self._encoding = encoding
        self._max_entry_bytes = max_entry_bytes
        self._damage: str | None = None
        self._found: dict[str, _Entry] = {}
        try:
            self._file: BinaryIO = self.path.open("rb")
        except OSError as error:
            raise archive_error(self.path, f"can't be read: {error}") from error
        try:
            self._length = os.fstat(self._file.fileno()).st_size
            self._find()
        except OSError as error:
            self._file.close()
            raise archive_error(self.path, f"can't be read: {error}") from error
        except BaseException:
            self._file.close()
            raise

    @property
    def entries(self) -> tuple[str, ...]:
        return tuple(self._found)

    @property
    def damage(self) -> str | None:
        return self._damage

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def close(self) -> None:
        self._file.close()

    def read(self, name: str) -> bytes:
        entry = self._found.get(name)
        if entry is None:
            raise self._error(f"there is no such entry among {len(self._found)}", name)
        if max(entry.stored, entry.size) > self._max_entry_bytes:
            raise self._error(
                f"has {max(entry.stored, entry.size)} bytes, and at most {self._max_entry_bytes} are read; "
                "pass max_entry_bytes if it is meant to be as long",
                name,
            )
        encoded = name.encode(self._encoding)
        head = START_TAG + U32.pack(len(encoded)) + encoded
        try:
            found = os.pread(
                self._file.fileno(), entry.end - entry.position + len(head), entry.position - len(head)
            )
        except (OSError, ValueError) as error:  # the latter once it is closed
            raise self._error(f"can't be read: {error}", name) from error
        if len(found) != entry.end - entry.position + len(head):
            raise self._error("the file has become shorter since it was opened", name)
        if not found.startswith(head):
            raise self._error(
                f"the entry's start tag and name don't stand at byte {entry.position - len(head)}", name
            )
        size, compressed, _ = SIZES.unpack_from(found, len(head))
        if (size, compressed) != (entry.size, entry.compressed):
            raise self._error(
                f"the table says {entry.size} bytes ({entry.compressed} compressed), the entry {size} ({compressed})",
                name,
            )
        if not found.endswith(END_TAG):
            raise self._error(f"the entry's end tag doesn't stand at byte {entry.end - len(END_TAG)}", name)
        payload = found[len(head) + SIZES.size : -len(END_TAG)]
        return self._decompress(payload, size, name) if compressed else payload

    def _decompress(self, payload: bytes, size: int, name: str) -> bytes:
        stream = zlib.decompressobj(wbits=31)  # gzip with its check sums
        try:
            content = stream.decompress(payload, size + 1)
        except zlib.error as error:
            raise self._error(f"isn't a gzip stream: {error}", name) from error
        if len(content) != size or not stream.eof or stream.unused_data:
            holds = f"more than {size}" if len(content) > size else str(len(content))
            unfinished = "" if stream.eof else ", unfinished"
            more = f", and {len(stream.unused_data)} bytes follow it" if stream.unused_data else ""
            raise self._error(
                f"its gzip stream holds {holds} bytes{unfinished}{more}; the entry says {size}", name
            )
        return content

    def _error(self, problem: str, entry: str | None = None) -> DataError:
        return archive_error(self.path, problem, entry=entry)

    def _find(self) -> None:
        header = self._file.read(HEADER)
        if header[: len(MAGIC)] != MAGIC:
            raise self._error(
                f"begins with {header[: len(MAGIC)]!r}, not with {MAGIC!r}: it is no Sprint archive"
            )
        if len(header) < HEADER:
            raise self._error("is truncated")
        if header[-1] > 1:
            raise self._error(f"has_table is {header[-1]}, not 0 or 1")
        if header[-1] and not self._recover:
            self._read_table()
        else:
            self._scan()

    # With a table.

    def _read_table(self) -> None:
        fixed = 2 * U32.size + 2 * U64.size  # two counts, two positions
        if self._length < HEADER + fixed:
            raise self._broken_table("the file is too short for one")
        (table,) = U64.unpack(self._take_at(self._length - U64.size, U64.size))
        if not HEADER <= table <= self._length - fixed:
            raise self._broken_table(f"it should begin at byte {table} of {self._length}")
        self._file.seek(table)
        end = self._length - 2 * U64.size
        for number in range(self._count(end, U32.size + TABLE_SIZES.size)):
            (length,) = U32.unpack(self._take(U32.size, end))
            name = self._decode(self._take(length, end), f"entry {number} of the table")
            entry = _Entry(*TABLE_SIZES.unpack(self._take(TABLE_SIZES.size, end)))
            first = HEADER + len(START_TAG) + U32.size + length
            if not name:
                raise self._broken_table(f"entry {number} of the table has no name")
            if entry.position < first or entry.end > table:
                raise self._error(
                    f"the table puts it at bytes {entry.position} to {entry.end}, but entries lie between "
                    f"{first} and {table}",
                    name,
                )
            self._add(name, entry)
        gaps = self._file.tell()
        count = self._count(end, SLOT.size)
        if self._file.tell() + count * SLOT.size != end:
            raise self._broken_table(f"it lists {count} gaps in {end - self._file.tell()} bytes")
        (stated,) = U64.unpack(self._take_at(end, U64.size))
        if stated != gaps:
            raise self._broken_table(f"its gaps begin at byte {gaps}, and it says {stated}")

    def _broken_table(self, problem: str) -> DataError:
        return self._error(
            f"the table at its end is broken: {problem}; recover=True finds the entries without it"
        )

    def _count(self, end: int, least: int) -> int:
        """A count of things of at least so many bytes, which must fit before `end`."""
        (count,) = U32.unpack(self._take(U32.size, end))
        if count * least > end - self._file.tell():
            raise self._broken_table(f"it can't hold {count} items in {end - self._file.tell()} bytes")
        return int(count)

    def _take(self, length: int, end: int) -> bytes:
        if length > end - self._file.tell():
            raise self._broken_table(f"{length} bytes are wanted and {end - self._file.tell()} are left")
        return self._file.read(length)

    def _take_at(self, position: int, length: int) -> bytes:
        self._file.seek(position)
        return self._file.read(length)

    # Without one.

    def _scan(self) -> None:
        position = HEADER
        while position < self._length:
            after = self._scan_entry(position)
            if after is None:
                self._leave_out(position)
                return
            position = after

    def _leave_out(self, position: int) -> None:
        """What begins here is no whole entry."""
        trailer = self._take_at(max(self._length - U64.size, 0), U64.size)
        if trailer == U64.pack(position):
            return  # the table
        rest = f"the {self._length - position} bytes from {position} on are no whole entry"
        if not self._recover:
            raise self._error(
                f"has no table, and {rest}; recover=True reads the {len(self._found)} entries before them"
            )
        self._damage = rest

    def _scan_entry(self, position: int) -> int | None:
        """Takes in the entry that begins here; returns where it ends, None where there is no whole one."""
        head = self._take_at(position, len(START_TAG) + U32.size)
        if len(head) < len(START_TAG) + U32.size or not head.startswith(START_TAG):
            return None
        (length,) = U32.unpack_from(head, len(START_TAG))
        sizes = position + len(head) + length
        if sizes + SIZES.size > self._length:
            return None
        name = self._file.read(length)
        size, compressed, _ = SIZES.unpack(self._file.read(SIZES.size))
        entry = _Entry(sizes, size, compressed)
        whole = entry.end <= self._length and self._take_at(entry.end - len(END_TAG), len(END_TAG)) == END_TAG
        if not length:
            # Deleted. Where the bytes of its name are still there, its sizes aren't where they should be.
            return entry.end if whole else self._find_end(sizes)
        if not whole:
            return None
        self._add(self._decode(name, f"the entry at byte {position}"), entry)
        return entry.end

    def _find_end(self, position: int) -> int | None:
        """Behind the first end tag from here on that another entry or the end of the file follows."""
        tail = b""
        self._file.seek(position)
        while block := self._file.read(_SEARCH_BYTES):
            text, start = tail + block, position - len(tail)
            position += len(block)
            at = text.find(END_TAG)
            while at >= 0:
                end = start + at + len(END_TAG)
                if end == self._length or self._take_at(end, len(START_TAG)) == START_TAG:
                    return end
                at = text.find(END_TAG, at + 1)
            self._file.seek(position)
            tail = text[1 - len(END_TAG) :]
        return None

    def _decode(self, name: bytes, where: str) -> str:
        try:
            return name.decode(self._encoding)
        except UnicodeDecodeError as error:
            raise self._error(
                f"{where} is named {name[:100]!r}, which isn't {self._encoding}; pass its encoding"
            ) from error

    def _add(self, name: str, entry: _Entry) -> None:
        if name in self._found and not self._recover:
            raise self._error("stands twice", name)
        self._found[name] = entry
