"""A word bigram estimated from training text with interpolated Witten-Bell smoothing.

    p(w)     = (c(w) + N1+(·) / (V + 1)) / (c(·) + N1+(·))
    p(w | h) = (c(h, w) + N1+(h ·) · p(w)) / (c(h ·) + N1+(h ·))

with c the counts, N1+(h ·) the number of different words seen after h, V = N1+(·) the number of different words seen,
and one share of the uniform part left for unseen words (Witten & Bell 1991; Chen & Goodman 1998, section 2.4).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from seqtrain.errors import ArgumentError

__all__ = ["SENTENCE_END", "SENTENCE_START", "Bigram", "witten_bell"]

SENTENCE_START = "<s>"
SENTENCE_END = "</s>"


@dataclass(frozen=True)
class Bigram:
    """A bigram in backoff form; all values natural logarithms.

    log p(w | h) = `floor` for a word never seen, whatever the history; else `bigrams[h, w]` where that is stored;
    else `backoffs[h]` (0 for a history never seen) + `unigrams[w]`.

    A stored bigram is never smaller than the backoff alternative (interpolation guarantees it), so a decoder that
    takes the larger of both, without comparing, is exact.
    """

    unigrams: Mapping[str, float]
    bigrams: Mapping[tuple[str, str], float]
    backoffs: Mapping[str, float]
    floor: float

    def unigram(self, word: str) -> float:
        """log p(word); `floor` for a word never seen."""
        return self.unigrams.get(word, self.floor)

    def log_prob(self, word: str, history: str) -> float:
        """log p(word | history); `history` may be `SENTENCE_START`, `word` may be `SENTENCE_END`."""
        if word not in self.unigrams:
            return self.floor
        stored = self.bigrams.get((history, word))
        return stored if stored is not None else self.backoffs.get(history, 0.0) + self.unigrams[word]

    def score(self, words: Sequence[str]) -> float:
        """log p of a whole sentence, its end included."""
        history, total = SENTENCE_START, 0.0
        for word in (*words, SENTENCE_END):
            total += self.log_prob(word, history)
            history = word
        return total

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> float:
        """exp(-(sum of log p) / (words + sentence ends))."""
        sentences = list(sentences)
        events = sum(len(s) + 1 for s in sentences)
        if events == 0:
            raise ArgumentError("perplexity needs at least one sentence", argument="sentences")
        return math.exp(-sum(self.score(s) for s in sentences) / events)


def witten_bell(sentences: Iterable[Sequence[str]], *, floor: float = math.log(1e-3)) -> Bigram:
    """Estimates a bigram from `sentences`, each a sequence of words.

    `floor` is log p(w | h) of a word that the sentences don't hold ("open" vocabulary: such words can be recognized,
    at the price of the floor). It is not taken from the other words' mass. The default, a thousandth, is about one
    over the size of a small vocabulary.

    Raises:
        ArgumentError: no sentence, a plain string in place of a sequence of words, a word named like a sentence
            boundary, or a `floor` above 0.
    """
    if not floor <= 0.0:
        raise ArgumentError(f"floor is a log probability and can't be {floor}", argument="floor")
    histories: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    words: Counter[str] = Counter()
    for sentence in sentences:
        if isinstance(sentence, str):
            raise ArgumentError(
                "a sentence must be a sequence of words, not a string: pass text.split()",
                argument="sentences",
            )
        if SENTENCE_START in sentence or SENTENCE_END in sentence:
            raise ArgumentError(
                "sentence boundaries are added here; "
                f"remove {SENTENCE_START} and {SENTENCE_END} from the text",
                argument="sentences",
            )
        history = SENTENCE_START
        for word in (*sentence, SENTENCE_END):
            histories[history] += 1
            pairs[history, word] += 1
            words[word] += 1
            history = word
    if not words:
        raise ArgumentError("a bigram needs at least one sentence", argument="sentences")

    types, tokens = len(words), words.total()
    unigrams = {
        word: math.log((count + types / (types + 1)) / (tokens + types)) for word, count in words.items()
    }
    followers = Counter(history for history, _ in pairs)
    bigrams = {
        (history, word): math.log(
            (count + followers[history] * math.exp(unigrams[word]))
            / (histories[history] + followers[history])
        )
        for (history, word), count in pairs.items()
    }
    backoffs = {
        history: math.log(followers[history] / (histories[history] + followers[history]))
        for history in histories
    }
    return Bigram(unigrams, bigrams, backoffs, floor)
