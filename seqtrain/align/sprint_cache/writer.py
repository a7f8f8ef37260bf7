"""Writing Sprint archives."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from types import TracebackType

from seqtrain.align.sprint_cache.archive import ATTRIBUTES, archive_error
from seqtrain.align.sprint_cache.layout import END_TAG, MAGIC, SIZES, START_TAG, TABLE_SIZES, U32, U64
from seqtrain.errors import DataError
from seqtrain.files import replace_file

__all__ = ["SpArchiveWriter"]

_U32_LIMIT = 1 << 32
# Deflate, no flags, no time, no extra flags, Unix.
_GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\x03"


class SpArchiveWriter:
    """Writes an archive as RASR does, byte for byte; a context manager.

    The file appears, whole, when the writer is closed, and stays as it was where the `with` block ends with an error.
    Until then the entries are held in memory, as long as they will be in the file.

    Args:
        path: the file.
        compress: each entry becomes a gzip stream.
        encoding: of the names.
    """

    def __init__(self, path: str | Path, *, compress: bool = False, encoding: str = "utf-8") -> None:
        self.path = Path(path)
        self._compress = compress
        self._encoding = encoding
        self._content = io.BytesIO()
        self._content.write(MAGIC + b"\x01")
        self._table: dict[str, bytes] = {}
        self._closed = False

    def add(self, name: str, payload: bytes, *, attributes: bytes | None = None) -> None:
        """Adds an entry, and where given its attributes, an XML document.

        Raises:
            DataError: the name is empty or stands in the archive already; an entry of 4 GiB or more; it is closed.
        """
        self._add(name, payload)
        if attributes is not None:
            self._add(name + ATTRIBUTES, attributes)

    def _add(self, name: str, payload: bytes) -> None:
        if self._closed:
            raise self._error("the archive has been written already", name)
        if not name or name in self._table:
            raise self._error(
                "has the entry already"
                if name
                else "an entry needs a name: none is how deleted ones are marked",
                name,
            )
        stored = _gzip(payload) if self._compress else payload
        encoded = self._encode(name)
        if max(len(stored), len(payload), len(encoded)) >= _U32_LIMIT:
            raise self._error(f"{len(payload)} bytes are too many: an entry has less than 4 GiB", name)
        compressed = len(stored) if self._compress else 0
        named = U32.pack(len(encoded)) + encoded
        self._content.write(START_TAG + named)
        self._table[name] = named + TABLE_SIZES.pack(self._content.tell(), len(payload), compressed)
        self._content.write(SIZES.pack(len(payload), compressed, 0))
        self._content.write(stored)
        self._content.write(END_TAG)

    def close(self) -> None:
        """Writes the file, atomically; once."""
        if self._closed:
            return
        table = self._content.tell()
        self._content.write(U32.pack(len(self._table)) + b"".join(self._table.values()))
        gaps = self._content.tell()
        self._content.write(U32.pack(0) + U64.pack(gaps) + U64.pack(table))
        replace_file(self.path, self._content.getvalue())
        self._closed = True

    def __enter__(self) -> SpArchiveWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()

    def _encode(self, name: str) -> bytes:
        try:
            return name.encode(self._encoding)
        except UnicodeEncodeError as error:
            raise self._error(f"the name can't be written as {self._encoding}", name) from error

    def _error(self, problem: str, entry: str) -> DataError:
        return archive_error(self.path, problem, entry=entry or None)


def _gzip(payload: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    body = deflate.compress(payload) + deflate.flush()
    return _GZIP_HEADER + body + struct.pack("<II", zlib.crc32(payload), len(payload) % _U32_LIMIT)
