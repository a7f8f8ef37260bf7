"""One recording and what is said in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Utterance"]


@dataclass(frozen=True)
class Utterance:
    """One recording and what is said in it.

    `id` is unique within a corpus and is the tag that errors, automata and alignments carry. `audio` is the
    file, `text` the normalized transcript (words separated by single spaces), `duration` is in seconds.
    """

    id: str
    audio: Path
    text: str
    duration: float
    speaker: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the transcript, in order."""
        return tuple(self.text.split())
