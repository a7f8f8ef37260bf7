"""The two held-out sets, both functions of the transcripts alone."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping

__all__ = ["novel_ids", "standard_ids"]


def standard_ids(texts: Mapping[str, str]) -> set[str]:
    """Every tenth utterance by a checksum of its text: prompts of the same kind as those that remain for
    training.

    Utterances of the same text fall on the same side.
    """
    return {name for name, text in texts.items() if zlib.crc32(text.encode()) % 10 == 0}


def novel_ids(texts: Mapping[str, str], *, order: int = 3) -> set[str]:
    """Utterances of at least `order` words that share no sequence of `order` words with any other utterance.

    Nothing of these is learnt as a phrase. They are what the model makes of sentences it hasn't met.
    """
    phrases = {name: _sequences(text.split(), order) for name, text in texts.items()}
    counts = Counter(phrase for found in phrases.values() for phrase in found)
    return {name for name, found in phrases.items() if found and all(counts[phrase] == 1 for phrase in found)}


def _sequences(words: list[str], order: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + order]) for i in range(len(words) - order + 1)}
