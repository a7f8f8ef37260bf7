"""Alignments as JSON lines: one object for each utterance, times in seconds and in frames."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from seqtrain.align.segments import AlignedUtterance
from seqtrain.files import replace_file

__all__ = ["format_jsonl", "write_jsonl"]


def format_jsonl(utterances: Iterable[AlignedUtterance]) -> str:
    """One line each: `{"id", "duration_s", "words": [segment], "phones": [segment], "score"}`.

    A segment holds the fields of `Segment`, times rounded to the microsecond.
    """
    return "".join(json.dumps(_rounded(asdict(u)), ensure_ascii=False) + "\n" for u in utterances)


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value


def write_jsonl(path: str | Path, utterances: Iterable[AlignedUtterance]) -> None:
    """Writes `format_jsonl` to `path`."""
    replace_file(Path(path), format_jsonl(utterances).encode())
