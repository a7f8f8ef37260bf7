"""Automata that were fetched before, kept in files: shared by runs, and by processes at one time."""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path

from google.protobuf.message import DecodeError

from seqtrain.aligner.answers import read_automata
from seqtrain.aligner.cache import CacheKey
from seqtrain.aligner.v1 import aligner_pb2
from seqtrain.aligner.v1.automata import automata_message
from seqtrain.errors import AlignerError
from seqtrain.files import replace_file
from seqtrain.fsa import Fsa, FsaBatch

__all__ = ["DiskCache"]

_LOG = logging.getLogger("seqtrain")
_SUFFIX = ".automaton"


class DiskCache:
    """One file an automaton, named by a digest of labels, configuration and segment: an entry is never out of date.

    What can't be read is fetched again; where a file can't be written (a full disk), that is said once, and the cache
    is read alone from then on.

    Args:
        folder: is made where it isn't there.
        max_bytes: of all files; beyond, those that were written first go.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._bytes: int | None = None
        self._writable = True

    @property
    def writable(self) -> bool:
        """False once a file couldn't be written."""
        return self._writable

    def _path(self, key: CacheKey) -> Path:
        digest = hashlib.sha256("\0".join(key).encode()).hexdigest()
        return self._folder / digest[:2] / (digest[2:] + _SUFFIX)

    def get(self, key: CacheKey) -> Fsa | None:
        """The automaton, or None."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        checksum, body = content[:32], content[32:]
        if hashlib.sha256(body).digest() != checksum:
            return None
        try:
            answer = aligner_pb2.GetAutomataResponse.FromString(body)
            (found,) = read_automata(answer, [key.segment], target="cache")
        except (DecodeError, AlignerError, ValueError):
            return None
        return found if isinstance(found, Fsa) else None

    def put(self, key: CacheKey, fsa: Fsa) -> None:
        """Keeps the automaton."""
        if not self._writable:
            return
        message = automata_message(
            FsaBatch.from_list([fsa]),
            [aligner_pb2.ItemStatus(code=aligner_pb2.ITEM_CODE_OK)],
            inventory_etag=key.inventory_etag,
            config_digest=key.config_digest,
        )
        body = message.SerializeToString()
        content = hashlib.sha256(body).digest() + body
        with self._lock:
            try:
                replace_file(self._path(key), content)
                if self._bytes is None:
                    self._bytes = sum(size for _, size, _ in self._files())
                else:
                    self._bytes += len(content)
                if self._bytes > self._max_bytes:
                    self._make_room()
            except OSError as error:
                self._writable = False
                _LOG.warning(
                    "automata aren't written to the cache %s any more: %s",
                    self._folder,
                    error.strerror or error,
                )

    def _files(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self._folder.glob(f"*/*{_SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((status.st_mtime, status.st_size, path))
        return found

    def _make_room(self) -> None:
        """Removes the oldest files until a tenth of the room is free."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= 0.9 * self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
        self._bytes = total
