"""State tying: which emission class (column of the scores) an HMM state of an allophone has."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seqtrain.errors import ConfigError, LexiconError
from seqtrain.lexicon.rasr.allophones import AllophoneInventory
from seqtrain.lexicon.rasr.configuration import Configuration
from seqtrain.lexicon.rasr.phonology import Allophone, Phonology

__all__ = ["STATE_TYINGS", "StateTying", "make_state_tying"]

STATE_TYINGS = ("monophone", "monophone-dense", "monophone-eow", "no-tying-dense", "lookup")


class StateTying(ABC):
    """Maps HMM states of allophones to classes, which are 0 … `num_classes` - 1."""

    num_classes: int
    description: object
    """All that decides the classes, for digests; beside the phonemes and allophones."""

    @abstractmethod
    def class_of(self, allophone: Allophone, state: int) -> int:
        """The class of a state of an allophone."""

    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """A name of each class."""


@dataclass(frozen=True)
class _States:
    """How many HMM states with a class of their own the phonemes have: silence one, all others the same number."""

    phonology: Phonology
    states_per_phone: int
    silence: int | None

    def count(self, phoneme: int) -> int:
        return 1 if phoneme == self.silence else self.states_per_phone

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(phoneme, state), the states of a phoneme one after the other."""
        for phoneme in range(1, len(self.phonology.phonemes) + 1):
            for state in range(self.count(phoneme)):
                yield phoneme, state


class _Monophone(StateTying):
    """A class for each phoneme and state, numbered in inventory order."""

    def __init__(self, states: _States) -> None:
        self.description = "monophone"
        self._phonology = states.phonology
        self._classes = {key: number for number, key in enumerate(states)}
        self.num_classes = len(self._classes)

    def class_of(self, allophone: Allophone, state: int) -> int:
        return self._classes[allophone.phoneme, state]

    def labels(self) -> tuple[str, ...]:
        return tuple(f"{self._phonology.symbol(phoneme)}.{state}" for phoneme, state in self._classes)


class _MonophoneEndOfWord(StateTying):
    """`_Monophone`, and classes of their own for the last phoneme of a word.

    These stand behind all others, a block for each phoneme that ends a word, in the order of the allophones. Phonemes
    whose symbol is in square brackets have no such block.
    """

    def __init__(self, states: _States, inventory: AllophoneInventory) -> None:
        self.description = "monophone-eow"
        self._plain = _Monophone(states)
        self._phonology = states.phonology
        self._classes: dict[tuple[int, int], int] = {}
        first = self._plain.num_classes
        for allophone in inventory.allophones:
            symbol = self._phonology.symbol(allophone.phoneme)
            bracketed = symbol.startswith("[") and symbol.endswith("]")
            if allophone.final and not bracketed and (allophone.phoneme, 0) not in self._classes:
                for state in range(states.count(allophone.phoneme)):
                    self._classes[allophone.phoneme, state] = first + len(self._classes)
        self.num_classes = first + len(self._classes)

    def class_of(self, allophone: Allophone, state: int) -> int:
        if allophone.final:
            found = self._classes.get((allophone.phoneme, state))
            if found is not None:
                return found
        return self._plain.class_of(allophone, state)

    def labels(self) -> tuple[str, ...]:
        symbol = self._phonology.symbol
        ends = (f"{symbol(phoneme)}@eow.{state}" for phoneme, state in self._classes)
        return (*self._plain.labels(), *ends)


class _Dense(StateTying):
    """Classes by arithmetic, so that also combinations that never occur have one.

    ((phoneme · states + state) [· places + place]) [· P + left) · P + right], where P is one more than there are
    phonemes, and 0 the number of no neighbour. With boundary classes a place is none, initial, final, both; with
    word-end classes: not final, final.
    """

    def __init__(self, states: _States, *, contexts: bool, places: int) -> None:
        self.description = ["dense", contexts, places]
        self._phonology = states.phonology
        self._states_per_phone = states.states_per_phone
        self._numbers = len(states.phonology.phonemes) + 1
        self._contexts = contexts
        self._places = places
        neighbours = self._numbers**2 if contexts else 1
        self.num_classes = self._numbers * self._states_per_phone * places * neighbours

    def class_of(self, allophone: Allophone, state: int) -> int:
        number = allophone.phoneme * self._states_per_phone + state
        if self._places == 4:
            number = number * 4 + allophone.initial + 2 * allophone.final
        elif self._places == 2:
            number = number * 2 + allophone.final
        if self._contexts:
            number = (number * self._numbers + allophone.left) * self._numbers + allophone.right
        return number

    def labels(self) -> tuple[str, ...]:
        return tuple(map(self._label, range(self.num_classes)))

    def _label(self, number: int) -> str:
        context = ""
        if self._contexts:
            number, right = divmod(number, self._numbers)
            number, left = divmod(number, self._numbers)
            context = f"{{{self._phonology.symbol(left)}+{self._phonology.symbol(right)}}}"
        number, place = divmod(number, self._places)
        phoneme, state = divmod(number, self._states_per_phone)
        edges = {1: ("",), 2: ("", "@f"), 4: ("", "@i", "@f", "@i@f")}[self._places][place]
        return f"{self._phonology.symbol(phoneme)}{context}{edges}.{state}"


class _Lookup(StateTying):
    """Classes out of a file with lines `AA{B+N}@i.0 17`."""

    _LINE = re.compile(r"(\S+)\.([0-9]{1,9})\s+([0-9]{1,9})")

    def __init__(self, path: Path, inventory: AllophoneInventory) -> None:
        self._path = path
        self._phonology = inventory.phonology
        self._classes: dict[tuple[str, int], int] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise LexiconError(f"state tying {path} can't be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.startswith("#"):
                match = self._LINE.fullmatch(line.strip())
                if match is None:
                    raise LexiconError(
                        f"{path}, line {number}: expected `allophone.state class`, found {line.strip()!r}",
                        line=number,
                    )
                self._classes[match[1], int(match[2])] = int(match[3])
        if not self._classes:
            raise LexiconError(f"state tying {path} has no line")
        self.num_classes = max(self._classes.values()) + 1
        self.description = [[name, state, number] for (name, state), number in self._classes.items()]

    def class_of(self, allophone: Allophone, state: int) -> int:
        name = self._phonology.name(allophone)
        found = self._classes.get((name, state))
        if found is None:
            raise LexiconError(f"state tying {self._path} has no class of {name}.{state}")
        return found

    def labels(self) -> tuple[str, ...]:
        """The first allophone state of each class; `class N` where there is none."""
        names = {number: f"{name}.{state}" for (name, state), number in reversed(self._classes.items())}
        return tuple(names.get(number, f"class {number}") for number in range(self.num_classes))


def make_state_tying(
    configuration: Configuration,
    inventory: AllophoneInventory,
    *,
    states_per_phone: int,
    silence: int | None,
) -> StateTying:
    """The state tying that a configuration (`acoustic-model.state-tying`) asks for.

    Raises:
        ConfigError: an unknown type, or options that exclude each other.
        LexiconError: the file of a lookup can't be read or is malformed.
    """
    kind = configuration.choice("type", STATE_TYINGS)
    states = _States(inventory.phonology, states_per_phone, silence)
    if kind == "monophone":
        return _Monophone(states)
    if kind == "monophone-eow":
        return _MonophoneEndOfWord(states, inventory)
    if kind == "lookup":
        return _Lookup(configuration.file("file"), inventory)
    boundary = configuration.flag("use-boundary-classes", False)
    word_end = configuration.flag("use-word-end-classes", False)
    if boundary and word_end:
        raise ConfigError(
            f"{configuration.path}: use-boundary-classes and use-word-end-classes exclude each other",
            key=configuration.name("use-word-end-classes"),
        )
    places = 4 if boundary else 2 if word_end else 1
    return _Dense(states, contexts=kind == "no-tying-dense", places=places)
