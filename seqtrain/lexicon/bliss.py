"""Bliss XML lexica, as Sprint and RASR read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from seqtrain.errors import LexiconError
from seqtrain.lexicon.bliss_xml import BlissReader
from seqtrain.lexicon.lexicon import Lexicon, Pronunciation

__all__ = [
    "BlissLemma",
    "BlissLexicon",
    "BlissPhoneme",
    "BlissPronunciation",
    "read_bliss",
    "read_bliss_lexicon",
]


@dataclass(frozen=True)
class BlissPhoneme:
    """A phoneme of the inventory; `context`: whether it varies with its neighbours, and they with it."""

    symbol: str
    context: bool = True


@dataclass(frozen=True)
class BlissPronunciation:
    """A `<phon>`: its phonemes, its weight as natural log, its line."""

    phonemes: tuple[str, ...]
    log_weight: float
    line: int


@dataclass(frozen=True)
class BlissLemma:
    """A `<lemma>`: special kind or None, orthographies with single spaces, pronunciations, last line."""

    special: str | None
    orthographies: tuple[str, ...]
    pronunciations: tuple[BlissPronunciation, ...]
    line: int


@dataclass(frozen=True)
class BlissLexicon:
    """All that a Bliss lexicon says about words and their sounds, in the order of the file."""

    phonemes: tuple[BlissPhoneme, ...]
    lemmas: tuple[BlissLemma, ...]


def read_bliss(path: str | Path) -> BlissLexicon:
    """Reads a Bliss lexicon (`.xml`, also gzipped as `.xml.gz`) as it stands.

    The weight of a `<phon>` is its `score` (a cost, -ln p) or its `weight` (a probability).

    Raises:
        LexiconError: the file can't be read, isn't well-formed XML or no lexicon, declares entities (refused: they can
            blow up to any size), a pronunciation has a phoneme that isn't in the inventory, or a weight isn't a number
            of its kind. Carries the line, from 1, where there is one.
    """
    return _LexiconReader(Path(path)).read()


def read_bliss_lexicon(path: str | Path) -> Lexicon:
    """Reads a Bliss lexicon (`.xml`, also gzipped as `.xml.gz`).

    Read are the phoneme inventory, in its order, and of each lemma its orthographies and pronunciations: every
    orthography gets every pronunciation. The weight of a `<phon>` is its `score` (a cost, -ln p) or its
    `weight` (a probability). The lemmas with special="silence" and special="blank" name those phonemes; other
    special lemmas, and lemmas without an orthography or a pronunciation, are no words and are skipped.

    Raises:
        LexiconError: the file can't be read, isn't well-formed XML, declares entities (refused: they can blow
            up to any size), or says something a `Lexicon` can't hold. Carries the line, from 1, where there
            is one.
    """
    path = Path(path)
    bliss = read_bliss(path)
    words: dict[str, list[Pronunciation]] = {}
    specials: dict[str, str] = {}
    for lemma in bliss.lemmas:
        if lemma.special in ("silence", "blank"):
            _add_special(specials, lemma, path)
        elif lemma.special is None:
            for orthography in lemma.orthographies:
                _add_word(words, orthography, lemma, path)
    if not words:
        raise LexiconError(f"{path} holds no word")
    return Lexicon(
        words,
        phonemes=tuple(phoneme.symbol for phoneme in bliss.phonemes),
        silence=specials.get("silence"),
        blank=specials.get("blank"),
    )


def _error(path: Path, line: int, message: str, *, word: str | None = None) -> LexiconError:
    return LexiconError(f"{path}, line {line}: {message}", word=word, line=line)


def _add_special(specials: dict[str, str], lemma: BlissLemma, path: Path) -> None:
    special = str(lemma.special)
    if len(lemma.pronunciations) != 1 or len(lemma.pronunciations[0].phonemes) != 1:
        raise _error(path, lemma.line, f"the lemma of {special} must have one pronunciation of one phoneme")
    if special in specials:
        raise _error(path, lemma.line, f"a second lemma of {special}")
    specials[special] = lemma.pronunciations[0].phonemes[0]


def _add_word(words: dict[str, list[Pronunciation]], word: str, lemma: BlissLemma, path: Path) -> None:
    if " " in word:
        raise _error(
            path,
            lemma.line,
            f"orthography {word!r} has several words, which isn't supported",
            word=word,
        )
    for pronunciation in lemma.pronunciations:
        line, phonemes = pronunciation.line, pronunciation.phonemes
        if not word:
            raise _error(path, line, "a lemma that isn't special has an empty orthography")
        if not phonemes:
            raise _error(path, line, f"word {word!r} has an empty pronunciation", word=word)
        variants = words.setdefault(word, [])
        if any(phonemes == other.phonemes for other in variants):
            said = " ".join(phonemes)
            raise _error(path, line, f"word {word!r} has the pronunciation {said!r} already", word=word)
        variants.append(Pronunciation(phonemes, pronunciation.log_weight))


class _LexiconReader(BlissReader):
    root = "lexicon"
    kind = "lexicon"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._phonemes: dict[str, BlissPhoneme] = {}
        self._lemmas: list[BlissLemma] = []
        # The phoneme that is open.
        self._symbol: str | None = None
        self._context = True
        # The lemma that is open.
        self._special: str | None = None
        self._orthographies: list[str] = []
        self._pronunciations: list[BlissPronunciation] = []
        self._log_weight = 0.0

    def read(self) -> BlissLexicon:
        self._parse()
        return BlissLexicon(tuple(self._phonemes.values()), tuple(self._lemmas))

    def _failure(self, message: str, *, line: int | None) -> LexiconError:
        return LexiconError(message, line=line)

    def _begin(self, name: str, parent: str | None, attributes: dict[str, str]) -> None:
        if name == "phoneme":
            self._symbol, self._context = None, True
        elif name == "lemma":
            self._special = attributes.get("special")
            self._orthographies.clear()
            self._pronunciations.clear()
        elif name == "phon":
            self._log_weight = self._weight(attributes)

    def _finish(self, name: str, parent: str | None, words: list[str]) -> None:
        match parent, name:
            case "phoneme", "symbol":
                if len(words) != 1:
                    raise self._fail(f"a phoneme's symbol must be one word, found {' '.join(words)!r}")
                self._symbol = words[0]
            case "phoneme", "variation":
                self._context = words != ["none"]
            case _, "phoneme":
                self._add_phoneme()
            case "lemma", "orth":
                self._orthographies.append(" ".join(words))
            case "lemma", "phon":
                self._pronunciations.append(BlissPronunciation(tuple(words), self._log_weight, self._line))
            case _, "lemma":
                self._add_lemma()

    def _add_phoneme(self) -> None:
        if self._symbol is None:
            raise self._fail("a phoneme has no symbol")
        if self._symbol in self._phonemes:
            raise self._fail(f"phoneme {self._symbol!r} stands twice in the inventory")
        self._phonemes[self._symbol] = BlissPhoneme(self._symbol, self._context)

    def _add_lemma(self) -> None:
        for pronunciation in self._pronunciations:
            for phoneme in pronunciation.phonemes:
                if phoneme not in self._phonemes:
                    message = f"phoneme {phoneme!r} isn't in the inventory"
                    text, line = self._located(message, pronunciation.line)
                    raise self._failure(text, line=line)
        self._lemmas.append(
            BlissLemma(self._special, tuple(self._orthographies), tuple(self._pronunciations), self._line)
        )

    def _weight(self, attributes: dict[str, str]) -> float:
        value = attributes.get("score", attributes.get("weight"))
        if value is None:
            return 0.0
        try:
            number = float(value)
        except ValueError:
            raise self._fail(f"{value!r} is not a number") from None
        if "score" in attributes:
            if not math.isfinite(number):
                raise self._fail(f"score is {value}; it must be finite")
            return -number
        if not 0.0 < number < math.inf:
            raise self._fail(f"weight is {value}; it must be a positive number")
        return math.log(number)
