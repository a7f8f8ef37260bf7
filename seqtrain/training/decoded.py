"""What a network recognizes, as JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from seqtrain.decoding import DecodedWords
from seqtrain.files import replace_file

__all__ = ["write_decoded"]


def write_decoded(
    path: Path, decoded: Mapping[str, DecodedWords], *, frame_shift: float, frame_offset: float
) -> None:
    """Writes a line `{"id", "score", "truncated", "words": [{"word", "start_s", "end_s", "confidence"}]}` an utterance.

    `truncated` counts the states that the beam dropped; 0: the words are those of the best path of all. `score` is null
    where there is no path.
    """
    lines = []
    for tag, found in decoded.items():
        words = [
            {
                "word": word.word,
                "start_s": round(max(0.0, frame_offset + word.begin * frame_shift), 4),
                "end_s": round(max(0.0, frame_offset + word.end * frame_shift), 4),
                "confidence": round(word.confidence, 6),
            }
            for word in found.words
        ]
        score = found.score if math.isfinite(found.score) else None
        record = {"id": tag, "score": score, "truncated": found.truncated, "words": words}
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, "".join(lines).encode())
