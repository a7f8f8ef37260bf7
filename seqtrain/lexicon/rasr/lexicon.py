"""The lexicon as the exporter uses it: lemmas by what is written, pronunciations by number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from seqtrain.errors import LexiconError
from seqtrain.lexicon.bliss import BlissLemma, BlissLexicon

__all__ = ["Lemma", "RasrLexicon"]


_SPECIALS = ("silence", "blank", "unknown")


class Lemma(NamedTuple):
    """An entry of the lexicon.

    Attributes:
        number: its place in the lexicon.
        variants: for each pronunciation the numbers of its phonemes (from 1, in inventory order) and its cost (-ln).
    """

    number: int
    variants: tuple[tuple[tuple[int, ...], float], ...]


class RasrLexicon:
    """Lemmas of a Bliss lexicon.

    Args:
        bliss: what the file says.
        path: the file, for messages.
        normalize: whether the probabilities of a lemma's pronunciations are made to sum to 1; otherwise their costs
            are used as they are.

    Attributes:
        pronunciations: all of them, in the order of the file.
        silence, blank, unknown: the special lemmas, None where there is no such lemma.
        silence_phoneme, blank_phoneme: the one phoneme of these, or None.
        description: all that decides what `spell` says, for digests.

    Raises:
        LexiconError: one of these special lemmas stands twice, silence or blank isn't one phoneme, or a
            lemma that isn't special has an empty pronunciation.
    """

    def __init__(self, bliss: BlissLexicon, *, path: Path, normalize: bool) -> None:
        self._path = path
        self._numbers = {phoneme.symbol: number for number, phoneme in enumerate(bliss.phonemes, start=1)}
        self.pronunciations: list[tuple[int, ...]] = []
        # By the first word of the orthography: all of its words, and the variants.
        self._lemmas: dict[str, list[tuple[tuple[str, ...], Lemma]]] = {}
        specials: dict[str, Lemma] = {}
        for number, entry in enumerate(bliss.lemmas):
            lemma = Lemma(number, self._variants(entry, normalize=normalize))
            self.pronunciations += [phonemes for phonemes, _ in lemma.variants]
            if entry.special in _SPECIALS:
                if entry.special in specials:
                    raise LexiconError(
                        f"{path}, line {entry.line}: a second lemma of {entry.special}", line=entry.line
                    )
                specials[entry.special] = lemma
            if lemma.variants:
                for orthography in entry.orthographies:
                    words = tuple(orthography.split())
                    if words:
                        self._lemmas.setdefault(words[0], []).append((words, lemma))
        self.silence = specials.get("silence")
        self.blank = specials.get("blank")
        self.description: object = [self._lemmas, specials]
        unknown = specials.get("unknown")
        self.unknown = unknown if unknown is not None and unknown.variants else None
        self.silence_phoneme = self._only_phoneme("silence", self.silence)
        self.blank_phoneme = self._only_phoneme("blank", self.blank)

    def spell(self, words: Sequence[str]) -> tuple[list[list[tuple[Lemma, int]]], tuple[str, ...]]:
        """The lemmas that stand for `words`.

        Returns for each position the lemmas that begin there, with the position behind them; and the words that are
        part of no lemma. Each of those stands for the lemma of unknown words if there is one, otherwise for nothing.
        """
        arcs: list[list[tuple[Lemma, int]]] = []
        covered = 0
        unknown: list[str] = []
        for place, word in enumerate(words):
            here: list[tuple[Lemma, int]] = []
            for spelled, lemma in self._lemmas.get(word, ()):
                end = place + len(spelled)
                if len(spelled) == 1 or tuple(words[place:end]) == spelled:
                    here.append((lemma, end))
                    covered = max(covered, end)
            if covered <= place:
                unknown.append(word)
                if self.unknown is not None:
                    here.append((self.unknown, place + 1))
            arcs.append(here)
        return arcs, tuple(unknown)

    def _variants(self, lemma: BlissLemma, *, normalize: bool) -> tuple[tuple[tuple[int, ...], float], ...]:
        spoken = [pronunciation for pronunciation in lemma.pronunciations if pronunciation.phonemes]
        if lemma.special is None and len(spoken) < len(lemma.pronunciations):
            raise LexiconError(
                f"{self._path}, line {lemma.line}: a lemma that isn't special has an empty pronunciation",
                line=lemma.line,
            )
        costs = [-pronunciation.log_weight for pronunciation in spoken]
        if normalize and costs:
            least = min(costs)
            total = math.log(math.fsum(math.exp(least - cost) for cost in costs)) - least
            costs = [cost + total for cost in costs]
        return tuple(
            (tuple(self._numbers[phoneme] for phoneme in pronunciation.phonemes), cost)
            for pronunciation, cost in zip(spoken, costs, strict=True)
        )

    def _only_phoneme(self, special: str, lemma: Lemma | None) -> int | None:
        if lemma is None:
            return None
        variants = lemma.variants
        if len(variants) != 1 or len(variants[0][0]) != 1:
            raise LexiconError(
                f"{self._path}: the lemma of {special} must have one pronunciation of one phoneme"
            )
        return variants[0][0][0]
