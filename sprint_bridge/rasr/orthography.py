"""What RASR makes of words: it ends the process over a blank too many, and skips words that it doesn't know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seqtrain.errors import OutOfVocabularyError
from seqtrain.lexicon import Lexicon, read_lexicon

__all__ = ["Vocabulary", "rasr_orthography"]


def rasr_orthography(text: str) -> str:
    """The words of `text` as RASR's parser needs them: one blank after each, and no other white space."""
    return "".join(f"{word} " for word in text.split())


class Vocabulary:
    """The words that RASR's lexicon has, to be asked before RASR is.

    Args:
        lexicon: that RASR uses: Bliss XML or plain text; None: no word is objected to.
        extra_words: that RASR knows besides, such as the orthographies of special lemmas.

    Raises:
        LexiconError: the lexicon can't be read.
    """

    def __init__(self, lexicon: Path | None, *, extra_words: Sequence[str] = ()) -> None:
        self._lexicon: Lexicon | None = None if lexicon is None else read_lexicon(lexicon)
        self._extra = frozenset(extra_words)

    @property
    def is_known(self) -> bool:
        """Whether there is a lexicon to ask."""
        return self._lexicon is not None

    def check(self, text: str, *, segment: str | None = None) -> OutOfVocabularyError | None:
        """The error of a text that has unknown words, which it lists all; None where it has none."""
        if self._lexicon is None:
            return None
        missing = tuple(word for word in self._lexicon.missing_words([text]) if word not in self._extra)
        if not missing:
            return None
        return OutOfVocabularyError(
            f"not in the lexicon: {', '.join(map(repr, missing))}", words=missing, utterance=segment
        )
