"""The allophone inventory: every allophone that a model knows, by number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from seqtrain.errors import LexiconError
from seqtrain.lexicon.rasr.hash_order import hash_set_order
from seqtrain.lexicon.rasr.phonology import NO_CONTEXT, Allophone, Phonology

__all__ = ["AllophoneInventory"]

_NAME = re.compile(r"(?P<phoneme>\S+)\{(?P<left>\S+)\+(?P<right>\S+)\}(?P<initial>@i)?(?P<final>@f)?")
# Whether an allophone begins a word, and whether it ends one.
_PLACES = ((False, False), (True, False), (False, True), (True, True))
# What RASR writes for the allophone of a phoneme that isn't there.
_MISSING = "65535?{#+#}@i@f"


class AllophoneInventory:
    """Allophones in index order; the number of an HMM state of one is `index | state << 26`.

    The order depends on the order of lemmas and phonemes in the lexicon.
    """

    def __init__(self, phonology: Phonology) -> None:
        self.phonology = phonology
        self._index: dict[Allophone, int] = {}
        self._missing_silence = False

    def __len__(self) -> int:
        return len(self._index) + self._missing_silence

    def index(self, allophone: Allophone) -> int | None:
        """The number of an allophone, None if there is none."""
        return self._index.get(allophone)

    @property
    def allophones(self) -> tuple[Allophone, ...]:
        """The allophones in index order, without the one of `add_missing_silence`."""
        return tuple(self._index)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The allophones' names in index order."""
        names = tuple(map(self.phonology.name, self._index))
        return (*names, _MISSING) if self._missing_silence else names

    def text(self) -> str:
        """The inventory as RASR stores it in a file."""
        return "".join(f"{line}\n" for line in (f"# Number of allophones: {len(self)}", *self.names))

    def add_from_lexicon(self, pronunciations: Iterable[Sequence[int]]) -> None:
        """Adds the allophones of words, and, across words, those that a neighbouring word can turn them into.

        First come those of words that stand alone; then, for each that begins a word, those with a left neighbour;
        then, for each that ends a word, those with a right neighbour. Neighbours are the phonemes with context that
        end or begin words, in the order of a hash set (`hash_set_order`).
        """
        spoken = [pronunciation for pronunciation in pronunciations if pronunciation]
        for pronunciation in spoken:
            for allophone in self.phonology.within_word(pronunciation):
                self._add(allophone)
        if not self.phonology.across_words:
            return
        has_context = self.phonology.has_context
        ends = hash_set_order(p[-1] for p in spoken if has_context(p[-1]))
        begins = hash_set_order(p[0] for p in spoken if has_context(p[0]))
        for allophone in self.allophones:
            if allophone.initial:
                for neighbour in ends:
                    self._add(allophone._replace(left=self.phonology.left(allophone.phoneme, neighbour)))
        for allophone in self.allophones:
            if allophone.final:
                for neighbour in begins:
                    self._add(allophone._replace(right=self.phonology.right(allophone.phoneme, neighbour)))

    def add_all(self) -> None:
        """Adds every allophone there can be, also at places in a word where none occurs.

        Phonemes with context first: by contexts (none, left neighbours, right neighbours, both with the left one
        faster), then by place in the word, then by phoneme; behind them the other phonemes, by place.
        """
        phonology = self.phonology
        numbers = range(1, len(phonology.phonemes) + 1)
        varying = [number for number in numbers if phonology.has_context(number)]
        lefts = varying if phonology.history else []
        rights = varying if phonology.future else []
        contexts = [(NO_CONTEXT, NO_CONTEXT)]
        contexts += [(left, NO_CONTEXT) for left in lefts]
        contexts += [(NO_CONTEXT, right) for right in rights]
        contexts += [(left, right) for right in rights for left in lefts]
        for left, right in contexts:
            for initial, final in _PLACES:
                for phoneme in varying:
                    self._add(Allophone(phoneme, left, right, initial, final))
        for phoneme in numbers:
            if not phonology.has_context(phoneme):
                for initial, final in _PLACES:
                    self._add(Allophone(phoneme, NO_CONTEXT, NO_CONTEXT, initial, final))

    def add_from_file(self, path: Path) -> None:
        """Adds the allophones that a file names, one a line; `#` begins a comment.

        Raises:
            LexiconError: the file can't be read, or a line isn't the name of an allophone of these phonemes.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise LexiconError(f"allophones {path} can't be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.startswith("#"):
                try:
                    self._add(self.parse(line.strip()))
                except LexiconError as error:
                    raise LexiconError(f"{path}, line {number}: {error}", line=number) from error

    def add_missing_silence(self) -> None:
        """Adds what RASR adds when it asks for the allophone of a silence that the lexicon doesn't have."""
        self._missing_silence = True
        self.__dict__.pop("names", None)

    def parse(self, name: str) -> Allophone:
        """The allophone of a name.

        Raises:
            LexiconError: it isn't the name of an allophone of these phonemes.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise LexiconError(f"{name!r} isn't an allophone, such as AA{{B+N}}@i")
        numbers = {"#": NO_CONTEXT, **self.phonology.numbers}
        for part in ("phoneme", "left", "right"):
            if match[part] not in (self.phonology.numbers if part == "phoneme" else numbers):
                raise LexiconError(
                    f"allophone {name!r}: no phoneme {match[part]!r} in the lexicon's inventory"
                )
        return Allophone(
            numbers[match["phoneme"]],
            numbers[match["left"]],
            numbers[match["right"]],
            match["initial"] is not None,
            match["final"] is not None,
        )

    def _add(self, allophone: Allophone) -> None:
        self._index.setdefault(allophone, len(self._index))
        self.__dict__.pop("names", None)
