"""The allophones of a RASR acoustic model, which the labels of its alignments count.

The id of an allophone state holds the allophone's place in the list in its lower 26 bits and the HMM state in the four
above. RASR writes the list itself (`allophones.store-to-file`); it depends on the lexicon's order, so that ids mean
nothing without the list that they were made with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

from seqtrain.errors import ArgumentError, DataError

__all__ = ["DISAMBIGUATOR", "MAX_STATES", "Allophone", "AllophoneState", "Allophones", "join_id", "split_id"]

DISAMBIGUATOR = 0x40000000
"""The bit of a label that stands for no frame, but tells words of the same pronunciation apart."""

_INDEX_BITS = 26
_INDEX = (1 << _INDEX_BITS) - 1
MAX_STATES = DISAMBIGUATOR >> _INDEX_BITS
"""HMM states that an id has room for."""

_BOUNDARY = "#"
# A phoneme may be called "{": the shortest name in front of a brace, up to the last brace that closes.
_ALLOPHONE = re.compile(r"(?P<phone>.+?)\{(?P<context>.*)\}(?P<initial>@i)?(?P<final>@f)?")
_COUNT = re.compile(r"# Number of allophones: ([0-9]{1,18})")
_STATE = re.compile(r"(?P<allophone>.+)\.(?P<state>[0-9]{1,2})")


def split_id(label: int) -> tuple[int, int]:
    """The allophone's place in the list and the HMM state that an id stands for.

    Raises:
        ArgumentError: it has a disambiguator's bit or isn't in 0 … 2³² - 1: it is no allophone state.
    """
    if not 0 <= label < DISAMBIGUATOR:
        raise ArgumentError(
            f"label {label:#x} is no allophone state"
            + (": it has the bit of a disambiguator" if label & DISAMBIGUATOR else ""),
            argument="label",
        )
    return label & _INDEX, label >> _INDEX_BITS


def join_id(index: int, state: int) -> int:
    """The id of an allophone state; the inverse of `split_id`.

    Raises:
        ArgumentError: index or state doesn't fit into its bits.
    """
    if not 0 <= index <= _INDEX:
        raise ArgumentError(f"index must be in 0 … {_INDEX}, got {index}", argument="index")
    if not 0 <= state < MAX_STATES:
        raise ArgumentError(f"state must be in 0 … {MAX_STATES - 1}, got {state}", argument="state")
    return index | state << _INDEX_BITS


@dataclass(frozen=True)
class Allophone:
    """A phoneme in context, `C{L+R}@i@f`: `initial` and `final` say that it begins and ends its word.

    `context` is what stands in the braces, `#+#` for none.
    """

    phone: str
    context: str = f"{_BOUNDARY}+{_BOUNDARY}"
    initial: bool = False
    final: bool = False

    @staticmethod
    def of(phone: str, left: str | None, right: str | None, *, initial: bool, final: bool) -> Allophone:
        """With one neighbour on each side; None where there is none."""
        return Allophone(phone, f"{left or _BOUNDARY}+{right or _BOUNDARY}", initial, final)

    @staticmethod
    def parse(symbol: str) -> Allophone:
        """Reads `C{L+R}@i@f`.

        Raises:
            ArgumentError: the symbol isn't of this form.
        """
        match = _ALLOPHONE.fullmatch(symbol)
        if match is None:
            raise ArgumentError(
                f"allophone {symbol!r} isn't of the form phone{{left+right}}, with @i and @f behind it where it "
                "begins or ends a word",
                argument="symbol",
            )
        return Allophone(
            match["phone"], match["context"], match["initial"] is not None, match["final"] is not None
        )

    @property
    def has_context(self) -> bool:
        """Whether there is a neighbour on either side."""
        return self.context != Allophone.context

    def __str__(self) -> str:
        return f"{self.phone}{{{self.context}}}{'@i' * self.initial}{'@f' * self.final}"


@dataclass(frozen=True)
class AllophoneState:
    """An HMM state of an allophone, `C{L+R}@i@f.state`."""

    allophone: Allophone
    state: int

    @staticmethod
    def parse(symbol: str) -> AllophoneState:
        """Reads `C{L+R}@i@f.state`.

        Raises:
            ArgumentError: the symbol isn't of this form.
        """
        match = _STATE.fullmatch(symbol)
        if match is None:
            raise ArgumentError(
                f"allophone state {symbol!r} doesn't end in a dot and a number", argument="symbol"
            )
        return AllophoneState(Allophone.parse(match["allophone"]), int(match["state"]))

    def __str__(self) -> str:
        return f"{self.allophone}.{self.state}"


class Allophones(Sequence[Allophone]):
    """A list of allophones, in the order that ids count.

    Args:
        allophones: the list.

    Raises:
        ArgumentError: one stands twice, or there are more than an id can count.
    """

    def __init__(self, allophones: Sequence[Allophone]) -> None:
        self._allophones = tuple(allophones)
        self._index = {allophone: index for index, allophone in enumerate(self._allophones)}
        if len(self._allophones) > _INDEX + 1:
            raise ArgumentError(
                f"{len(self._allophones)} allophones are more than {_INDEX + 1}", argument="allophones"
            )
        if len(self._index) != len(self._allophones):
            twice = next(a for index, a in enumerate(self._allophones) if self._index[a] != index)
            raise ArgumentError(f"allophone {twice} stands twice", argument="allophones")

    @staticmethod
    def read(path: str | Path) -> Allophones:
        """Reads a list that RASR has stored: `# Number of allophones: N`, then an allophone in each line.

        Other lines that begin with `# ` are comments, and the number may be missing.

        Raises:
            DataError: the file can't be read, a line is no allophone, one stands twice, there is none, or not as many
                as the number says.
        """
        path = Path(path)
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"allophones {path} can't be read: {error}", path=str(path)) from error
        found: dict[Allophone, int] = {}
        stated: int | None = None
        for number, line in enumerate(lines, start=1):
            symbol = line.strip()
            if not symbol or symbol.startswith("# "):
                count = _COUNT.fullmatch(symbol)
                stated = stated if count is None else int(count[1])
                continue
            try:
                allophone = Allophone.parse(symbol)
            except ArgumentError as error:
                raise DataError(f"{path}, line {number}: {error}", path=str(path)) from error
            if allophone in found:
                raise DataError(
                    f"{path}, line {number}: allophone {symbol} stands in line {found[allophone]} already",
                    path=str(path),
                )
            found[allophone] = number
        if not found or stated not in (None, len(found)):
            what = "no allophone" if not found else f"{len(found)} allophones, and says that it has {stated}"
            raise DataError(f"{path} holds {what}", path=str(path))
        return Allophones(tuple(found))

    @overload
    def __getitem__(self, index: int) -> Allophone: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Allophone, ...]: ...

    def __getitem__(self, index: int | slice) -> Allophone | tuple[Allophone, ...]:
        return self._allophones[index]

    def __len__(self) -> int:
        return len(self._allophones)

    def __contains__(self, allophone: object) -> bool:
        return allophone in self._index

    def state(self, label: int) -> AllophoneState:
        """The allophone state that an id stands for.

        Raises:
            ArgumentError: the id is none, or the list is shorter.
        """
        index, state = split_id(label)
        if index >= len(self):
            raise ArgumentError(
                f"label {label} is allophone {index}, and the list has {len(self)}: it belongs to another lexicon",
                argument="label",
            )
        return AllophoneState(self._allophones[index], state)

    def label(self, state: AllophoneState) -> int:
        """The id of an allophone state; the inverse of `state`.

        Raises:
            ArgumentError: the list lacks the allophone, or the state doesn't fit into an id.
        """
        index = self._index.get(state.allophone)
        if index is None:
            raise ArgumentError(
                f"there is no allophone {state.allophone} among {len(self)}", argument="allophones"
            )
        return join_id(index, state.state)

    @cached_property
    def has_context(self) -> bool:
        """Whether any allophone has a neighbour: the model has triphones."""
        return any(allophone.has_context for allophone in self._allophones)

    @cached_property
    def crosses_words(self) -> bool:
        """Whether the first phone of a word can have a neighbour in the word before."""
        return any(a.initial and not a.context.startswith(f"{_BOUNDARY}+") for a in self._allophones)

    @cached_property
    def phones_without_context(self) -> frozenset[str]:
        """Phonemes that never have a neighbour, and aren't one to others: silence, noise."""
        phones = {allophone.phone for allophone in self._allophones}
        return frozenset(phones - {a.phone for a in self._allophones if a.has_context})
