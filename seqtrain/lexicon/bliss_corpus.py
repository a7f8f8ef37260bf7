"""Bliss XML corpora: what is said in each segment."""

from __future__ import annotations

from pathlib import Path

from seqtrain.errors import DataError
from seqtrain.lexicon.bliss_xml import BlissReader

__all__ = ["read_bliss_corpus"]

_NAMED = ("corpus", "subcorpus", "recording", "segment")


def read_bliss_corpus(path: str | Path) -> dict[str, str]:
    """Reads the orthographies of a Bliss corpus (`.xml`, also gzipped as `.xml.gz`).

    Returns full names of segments (`corpus/[subcorpus/…]recording/segment`) → words with single spaces between them,
    in the order of the file. `<include file="…">` is followed, from the folder of the file that says it.

    Raises:
        DataError: a file can't be read, isn't well-formed XML or no corpus, declares entities (refused: they can blow
            up to any size), includes itself; an element has no name, a segment no orthography or more than one, or two
            have the same name.
    """
    orthographies: dict[str, str] = {}
    _CorpusReader(Path(path), orthographies, including=()).read()
    return orthographies


class _CorpusReader(BlissReader):
    root = "corpus"
    kind = "corpus"

    def __init__(self, path: Path, orthographies: dict[str, str], *, including: tuple[Path, ...]) -> None:
        super().__init__(path)
        self._orthographies = orthographies
        self._including = (*including, path.resolve())
        self._names: list[str] = []
        self._words: list[str] | None = None

    def read(self) -> None:
        self._parse()

    def _failure(self, message: str, *, line: int | None) -> DataError:
        return DataError(message, path=str(self._path))

    def _begin(self, name: str, parent: str | None, attributes: dict[str, str]) -> None:
        if name in _NAMED:
            if not attributes.get("name"):
                raise self._fail(f"a <{name}> has no name")
            self._names.append(attributes["name"])
            if name == "segment":
                self._words = None
        elif name == "include":
            self._include(attributes.get("file", ""))

    def _include(self, file: str) -> None:
        path = self._path.parent / file
        if path.resolve() in self._including:
            raise self._fail(f"includes {file!r}, of which it is a part itself")
        _CorpusReader(path, self._orthographies, including=self._including).read()

    def _finish(self, name: str, parent: str | None, words: list[str]) -> None:
        if (parent, name) == ("segment", "orth"):
            if self._words is not None:
                raise self._fail(f"segment {'/'.join(self._names)!r} has a second orthography")
            self._words = words
        elif name in _NAMED:
            if name == "segment":
                self._add_segment()
            self._names.pop()

    def _add_segment(self) -> None:
        segment = "/".join(self._names)
        if self._words is None:
            raise self._fail(f"segment {segment!r} has no orthography")
        if segment in self._orthographies:
            raise self._fail(f"segment {segment!r} stands twice")
        self._orthographies[segment] = " ".join(self._words)
