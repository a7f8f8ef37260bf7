"""Phonemes by number, allophones, and which contexts tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from seqtrain.lexicon.bliss import BlissPhoneme

__all__ = ["NO_CONTEXT", "Allophone", "Phonology"]

NO_CONTEXT = 0
"""The number that stands where there is no neighbour, `#`; phonemes have numbers from 1 in inventory order."""


class Allophone(NamedTuple):
    """A phoneme in a context: numbers of the phoneme and its neighbours, and whether it begins and ends a word."""

    phoneme: int
    left: int
    right: int
    initial: bool
    final: bool


@dataclass(frozen=True)
class Phonology:
    """The phonemes, and what of its neighbours is part of an allophone.

    Attributes:
        phonemes: in inventory order.
        history: phonemes to the left that count, 0 or 1.
        future: phonemes to the right that count, 0 or 1.
        across_words: whether neighbours are looked for beyond the edges of a word.
    """

    phonemes: tuple[BlissPhoneme, ...]
    history: int = 1
    future: int = 1
    across_words: bool = False

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Symbol → number."""
        return {phoneme.symbol: number for number, phoneme in enumerate(self.phonemes, start=1)}

    @cached_property
    def _contexts(self) -> tuple[bool, ...]:
        return (False, *(phoneme.context for phoneme in self.phonemes))

    def symbol(self, number: int) -> str:
        """The symbol of a phoneme's number, `#` for `NO_CONTEXT`."""
        return "#" if number == NO_CONTEXT else self.phonemes[number - 1].symbol

    def has_context(self, number: int) -> bool:
        """Whether the phoneme varies with its neighbours, and they with it: `<variation>` isn't none."""
        return self._contexts[number]

    def left(self, phoneme: int, neighbour: int) -> int:
        """What an allophone of `phoneme` says of its left neighbour."""
        counts = self.history and self.has_context(phoneme) and self.has_context(neighbour)
        return neighbour if counts else NO_CONTEXT

    def right(self, phoneme: int, neighbour: int) -> int:
        """What an allophone of `phoneme` says of its right neighbour."""
        counts = self.future and self.has_context(phoneme) and self.has_context(neighbour)
        return neighbour if counts else NO_CONTEXT

    def within_word(self, pronunciation: Sequence[int]) -> list[Allophone]:
        """The allophones of a word that stands alone."""
        padded = (NO_CONTEXT, *pronunciation, NO_CONTEXT)
        last = len(pronunciation) - 1
        return [
            Allophone(
                phoneme,
                self.left(phoneme, padded[place]),
                self.right(phoneme, padded[place + 2]),
                place == 0,
                place == last,
            )
            for place, phoneme in enumerate(pronunciation)
        ]

    def name(self, allophone: Allophone) -> str:
        """An allophone as RASR writes it: `AA{B+N}`, with `@i` and `@f` at the edges of a word."""
        edges = "@i" * allophone.initial + "@f" * allophone.final
        left, right = self.symbol(allophone.left), self.symbol(allophone.right)
        return f"{self.symbol(allophone.phoneme)}{{{left}+{right}}}{edges}"
