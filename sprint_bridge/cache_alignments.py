"""Alignments to serve that RASR has cached: the label of each frame of each segment."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seqtrain.align.sprint_cache import (
    Allophones,
    Bundle,
    columns_of,
    frame_labels,
    open_archive,
    read_alignment,
)
from seqtrain.errors import ArgumentError, DataError
from seqtrain.lexicon import LabelInventory

__all__ = ["CacheAlignments"]


class CacheAlignments(Mapping[str, NDArray[np.int32]]):
    """Segment → labels (T,) int32, one a frame; each is read when it is asked for. Threads may share it.

    Asking for a segment raises DataError where its entry is broken, is weighted or has a label that the inventory
    lacks; `digest` reads all of them.

    Args:
        paths: archive files, folders or bundles.
        folders: nothing outside of these is opened, whatever links and bundles say.
        inventory: the columns that labels are.
        allophones: the list that the ids of allophone states count, for caches of them.

    Raises:
        DataError: an archive can't be read, is broken, or lies outside of `folders`; a segment stands in two of them;
            the list of allophones is broken.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        folders: Sequence[Path],
        inventory: LabelInventory,
        allophones: Path | None = None,
    ) -> None:
        self._inventory = inventory
        self._allophones = None if allophones is None else Allophones.read(allophones)
        with ExitStack() as opened:
            archives = [opened.enter_context(open_archive(path, folders=folders)) for path in paths]
            self._archive = Bundle(", ".join(map(str, paths)), archives)
            self._close = opened.pop_all().close

    def __getitem__(self, segment: str) -> NDArray[np.int32]:
        if not self._archive.has_segment(segment):
            raise KeyError(segment)
        path = str(self._archive.origin(segment))
        alignment = read_alignment(self._archive, segment)
        try:
            columns = columns_of(alignment, self._inventory, self._allophones)
        except ArgumentError as error:
            raise DataError(
                f"archive {path}, entry {segment!r}: {error}", path=path, utterance=segment
            ) from error
        return frame_labels(alignment, columns, path=path, name=segment)

    def __contains__(self, segment: object) -> bool:
        return self._archive.has_segment(segment)

    def __iter__(self) -> Iterator[str]:
        return iter(self._archive.segments)

    def __len__(self) -> int:
        return len(self._archive.segments)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all segments and their labels, 64 hex digits; reads all of them, one at a time.

        Raises:
            DataError: as asking for any of them.
        """
        content = hashlib.sha256()
        for segment in sorted(self):
            labels = self[segment].astype("<i4")
            name = segment.encode()
            content.update(f"{len(name)} {len(labels)} ".encode() + name + labels.tobytes())
        return content.hexdigest()

    def close(self) -> None:
        """Closes the archives."""
        self._close()
