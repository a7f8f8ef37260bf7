"""The pronunciation lexicon: which phonemes a word is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from seqtrain.errors import LexiconError
from seqtrain.lexicon.digest import content_digest

__all__ = ["DEFAULT_SILENCE", "Lexicon", "Pronunciation"]

DEFAULT_SILENCE = "[SILENCE]"


@dataclass(frozen=True)
class Pronunciation:
    """One way to say a word: its phonemes, and a natural-log weight (0: as likely as it gets)."""

    phonemes: tuple[str, ...]
    log_weight: float = 0.0


class Lexicon(Mapping[str, tuple[Pronunciation, ...]]):
    """Words and their pronunciation variants; a read-only mapping word → variants, in the order given.

    Args:
        words: for each word its variants, each a `Pronunciation` or a sequence of phonemes (log weight 0).
        phonemes: the phoneme inventory, in the order that label columns follow. Default: `silence`, then all
            phonemes of the words, sorted, so that the order of the words doesn't matter.
        silence: the phoneme of silence (one HMM state, optional between words), or None. It is added in front
            of `phonemes` where they don't hold it.
        blank: the phoneme that stands for CTC's blank where the inventory has one of its own, or None.

    Raises:
        LexiconError: a word is empty, holds white space, has no variant, an empty one or the same one twice;
            a phoneme isn't in the inventory or stands there twice; a weight is NaN or +inf.
    """

    def __init__(
        self,
        words: Mapping[str, Sequence[Pronunciation | Sequence[str]]],
        *,
        phonemes: Sequence[str] | None = None,
        silence: str | None = DEFAULT_SILENCE,
        blank: str | None = None,
    ) -> None:
        self._words = {word: tuple(map(_pronunciation, variants)) for word, variants in words.items()}
        used = {phoneme for variants in self._words.values() for v in variants for phoneme in v.phonemes}
        inventory = list(phonemes) if phonemes is not None else sorted(used - {silence, blank})
        inventory = [p for p in (blank, silence) if p is not None and p not in inventory] + inventory
        _check_inventory(inventory)
        self.phonemes = tuple(inventory)
        self.silence = silence
        self.blank = blank
        known = set(inventory)
        for word, variants in self._words.items():
            _check_word(word, variants, known)

    def __getitem__(self, word: str) -> tuple[Pronunciation, ...]:
        """The variants of a word; raises KeyError for one that isn't in the lexicon."""
        return self._words[word]

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)

    def __len__(self) -> int:
        return len(self._words)

    def __repr__(self) -> str:
        return f"Lexicon({len(self)} words, {len(self.phonemes)} phonemes)"

    def missing_words(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Every word of `texts` (words separated by white space) that the lexicon lacks, in order of
        appearance.
        """
        missing = {word: None for text in texts for word in text.split() if word not in self._words}
        return tuple(missing)

    def normalized(self) -> Lexicon:
        """The same lexicon with the weights of each word's variants normalized: their probabilities sum to 1.

        Raises:
            LexiconError: all variants of a word have weight -inf.
        """
        words = {word: _normalize(word, variants) for word, variants in self._words.items()}
        return Lexicon(words, phonemes=self.phonemes, silence=self.silence, blank=self.blank)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that the lexicon says; 64 hex digits."""
        words = {
            word: [[*v.phonemes, v.log_weight] for v in variants] for word, variants in self._words.items()
        }
        return content_digest([words, self.phonemes, self.silence, self.blank])


def _pronunciation(variant: Pronunciation | Sequence[str]) -> Pronunciation:
    return variant if isinstance(variant, Pronunciation) else Pronunciation(tuple(variant))


def _check_inventory(phonemes: Sequence[str]) -> None:
    seen: set[str] = set()
    for phoneme in phonemes:
        if not phoneme or phoneme.split() != [phoneme]:
            raise LexiconError(f"phoneme {phoneme!r} is empty or holds white space")
        if phoneme in seen:
            raise LexiconError(f"phoneme {phoneme!r} stands twice in the inventory")
        seen.add(phoneme)


def _check_word(word: str, variants: Sequence[Pronunciation], known: set[str]) -> None:
    if not word or word.split() != [word]:
        raise LexiconError(f"word {word!r} is empty or holds white space", word=word)
    if not variants:
        raise LexiconError(f"word {word!r} has no pronunciation", word=word)
    seen: set[tuple[str, ...]] = set()
    for variant in variants:
        said = " ".join(variant.phonemes)
        if not variant.phonemes:
            raise LexiconError(f"word {word!r} has an empty pronunciation", word=word)
        if variant.phonemes in seen:
            raise LexiconError(f"word {word!r} has the pronunciation {said!r} twice", word=word)
        seen.add(variant.phonemes)
        for phoneme in variant.phonemes:
            if phoneme not in known:
                raise LexiconError(
                    f"word {word!r}: phoneme {phoneme!r} isn't in the inventory of {len(known)} phonemes",
                    word=word,
                )
        if math.isnan(variant.log_weight) or variant.log_weight == math.inf:
            raise LexiconError(
                f"word {word!r}: pronunciation {said!r} has weight {variant.log_weight}", word=word
            )


def _normalize(word: str, variants: Sequence[Pronunciation]) -> list[Pronunciation]:
    largest = max(v.log_weight for v in variants)
    if largest == -math.inf:
        raise LexiconError(f"word {word!r}: all pronunciations have probability 0", word=word)
    total = largest + math.log(math.fsum(math.exp(v.log_weight - largest) for v in variants))
    return [Pronunciation(v.phonemes, v.log_weight - total) for v in variants]
