"""Bliss XML lexica, as Sprint and RASR read them."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from xml.parsers import expat

from seqtrain.errors import LexiconError
from seqtrain.lexicon.lexicon import Lexicon, Pronunciation

__all__ = ["read_bliss_lexicon"]


def read_bliss_lexicon(path: str | Path) -> Lexicon:
    """Reads a Bliss lexicon (`.xml`, also gzipped as `.xml.gz`).

    Read are the phoneme inventory, in its order, and of each lemma its orthographies and pronunciations:
        every
    orthography gets every pronunciation. The weight of a `<phon>` is its `score` (a cost, -ln p) or its
    `weight` (a probability). The lemmas with special="silence" and special="blank" name those phonemes; other
    special lemmas, and lemmas without an orthography or a pronunciation, are no words and are skipped.

    Raises:
        LexiconError: the file can't be read, isn't well-formed XML, declares entities (refused: they can blow
            up to any size), or says something a `Lexicon` can't hold. Carries the line, from 1, where there
            is one.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise LexiconError(f"lexicon {path} can't be read: {error}") from error
    return _BlissReader(path).read(content)


class _BlissReader:
    """Handlers of the XML parser, and what they have gathered so far."""

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
        self._phonemes: dict[str, None] = {}
        self._words: dict[str, list[Pronunciation]] = {}
        self._specials: dict[str, str] = {}
        # The lemma that is open: its special kind, its orthographies, its pronunciations with their lines.
        self._special: str | None = None
        self._orthographies: list[str] = []
        self._pronunciations: list[tuple[Pronunciation, int]] = []
        self._log_weight = 0.0

    def read(self, content: bytes) -> Lexicon:
        try:
            self._parser.Parse(content, True)
        except expat.ExpatError as error:
            raise LexiconError(f"{self._path} isn't well-formed XML: {error}", line=error.lineno) from error
        if not self._words:
            raise LexiconError(f"{self._path} holds no word")
        return Lexicon(
            self._words,
            phonemes=tuple(self._phonemes),
            silence=self._specials.get("silence"),
            blank=self._specials.get("blank"),
        )

    def _error(self, message: str, *, word: str | None = None, line: int | None = None) -> LexiconError:
        line = self._parser.CurrentLineNumber if line is None else line
        return LexiconError(f"{self._path}, line {line}: {message}", word=word, line=line)

    def _entity(self, name: str, *_: object) -> None:
        raise self._error(f"declares the entity {name!r}; entities are refused")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._open and name != "lexicon":
            raise self._error(f"expected <lexicon>, found <{name}>; this isn't a Bliss lexicon")
        self._open.append(name)
        self._text.clear()
        if name == "lemma":
            self._special = attributes.get("special")
            self._orthographies.clear()
            self._pronunciations.clear()
        elif name == "phon":
            self._log_weight = self._weight(attributes)

    def _characters(self, text: str) -> None:
        self._text.append(text)

    def _end(self, name: str) -> None:
        self._open.pop()
        parent = self._open[-1] if self._open else None
        text = "".join(self._text).split()
        self._text.clear()
        if (parent, name) == ("phoneme", "symbol"):
            self._add_phoneme(text)
        elif (parent, name) == ("lemma", "orth"):
            self._orthographies.append(" ".join(text))
        elif (parent, name) == ("lemma", "phon"):
            self._pronunciations.append(
                (Pronunciation(tuple(text), self._log_weight), self._parser.CurrentLineNumber)
            )
        elif name == "lemma":
            self._add_lemma()

    def _add_phoneme(self, text: list[str]) -> None:
        if len(text) != 1:
            raise self._error(f"a phoneme's symbol must be one word, found {' '.join(text)!r}")
        if text[0] in self._phonemes:
            raise self._error(f"phoneme {text[0]!r} stands twice in the inventory")
        self._phonemes[text[0]] = None

    def _add_lemma(self) -> None:
        for pronunciation, line in self._pronunciations:
            for phoneme in pronunciation.phonemes:
                if phoneme not in self._phonemes:
                    raise self._error(f"phoneme {phoneme!r} isn't in the inventory", line=line)
        if self._special is not None:
            if self._special in ("silence", "blank"):
                self._add_special(self._special)
            return
        for orthography in self._orthographies:
            if " " in orthography:
                raise self._error(
                    f"orthography {orthography!r} has several words, which isn't supported", word=orthography
                )
            for pronunciation, line in self._pronunciations:
                self._add_variant(orthography, pronunciation, line)

    def _add_special(self, special: str) -> None:
        if len(self._pronunciations) != 1 or len(self._pronunciations[0][0].phonemes) != 1:
            raise self._error(f"the lemma of {special} must have one pronunciation of one phoneme")
        if special in self._specials:
            raise self._error(f"a second lemma of {special}")
        self._specials[special] = self._pronunciations[0][0].phonemes[0]

    def _add_variant(self, word: str, pronunciation: Pronunciation, line: int) -> None:
        if not word:
            raise self._error("a lemma that isn't special has an empty orthography", line=line)
        if not pronunciation.phonemes:
            raise self._error(f"word {word!r} has an empty pronunciation", word=word, line=line)
        variants = self._words.setdefault(word, [])
        if any(pronunciation.phonemes == other.phonemes for other in variants):
            raise self._error(
                f"word {word!r} has the pronunciation {' '.join(pronunciation.phonemes)!r} already",
                word=word,
                line=line,
            )
        variants.append(pronunciation)

    def _weight(self, attributes: dict[str, str]) -> float:
        value = attributes.get("score", attributes.get("weight"))
        if value is None:
            return 0.0
        try:
            number = float(value)
        except ValueError:
            raise self._error(f"{value!r} is not a number") from None
        if "score" in attributes:
            if not math.isfinite(number):
                raise self._error(f"score is {value}; it must be finite")
            return -number
        if not 0.0 < number < math.inf:
            raise self._error(f"weight is {value}; it must be a positive number")
        return math.log(number)
