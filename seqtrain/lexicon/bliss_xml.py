"""What the readers of Bliss XML share: files, the stack of open elements, and what is refused."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from xml.parsers import expat

from seqtrain.errors import SeqtrainError

__all__ = ["BlissReader"]


class BlissReader:
    """Handlers of the XML parser. A reader of one kind of document overrides `_begin`, `_finish` and `_failure`."""

    root: str
    """Name of the outermost element."""
    kind: str
    """What such a document is called in messages."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.EntityDeclHandler = self._entity
        self._open: list[str] = []
        self._text: list[str] = []

    def _begin(self, name: str, parent: str | None, attributes: dict[str, str]) -> None:
        """An element has been opened."""

    def _finish(self, name: str, parent: str | None, words: list[str]) -> None:
        """An element ends; `words` is its text since the last tag, split at white space."""

    def _failure(self, message: str, *, line: int | None) -> SeqtrainError:
        """The error of this kind of document."""
        raise NotImplementedError

    def _parse(self) -> None:
        """Reads the file; `.gz` is unpacked.

        Raises what `_failure` makes: the file can't be read, isn't well-formed XML, is another document, or declares
        entities (refused: they can blow up to any size).
        """
        try:
            content = self._path.read_bytes()
            if self._path.name.endswith(".gz"):
                content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise self._failure(f"{self.kind} {self._path} can't be read: {error}", line=None) from error
        try:
            self._parser.Parse(content, True)
        except expat.ExpatError as error:
            raise self._failure(f"{self._path} isn't well-formed XML: {error}", line=error.lineno) from error

    @property
    def _line(self) -> int:
        return self._parser.CurrentLineNumber

    def _located(self, message: str, line: int | None = None) -> tuple[str, int]:
        line = self._line if line is None else line
        return f"{self._path}, line {line}: {message}", line

    def _fail(self, message: str) -> SeqtrainError:
        text, line = self._located(message)
        return self._failure(text, line=line)

    def _entity(self, name: str, *_: object) -> None:
        raise self._fail(f"declares the entity {name!r}; entities are refused")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._open and name != self.root:
            raise self._fail(f"expected <{self.root}>, found <{name}>; this isn't a Bliss {self.kind}")
        parent = self._open[-1] if self._open else None
        self._open.append(name)
        self._text.clear()
        self._begin(name, parent, attributes)

    def _characters(self, text: str) -> None:
        self._text.append(text)

    def _end(self, name: str) -> None:
        self._open.pop()
        words = "".join(self._text).split()
        self._text.clear()
        self._finish(name, self._open[-1] if self._open else None, words)
