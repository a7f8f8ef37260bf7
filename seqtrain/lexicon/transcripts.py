"""Transcripts: what is said in each utterance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from seqtrain.errors import DataError

__all__ = ["read_transcripts"]


def read_transcripts(path: str | Path) -> dict[str, str]:
    """Reads utterance names and their words.

    Where the name of the file ends in `.jsonl`, each line is a JSON object with the strings `id` and `text`
    (a manifest is one; other fields are left alone). Otherwise each line is a name and its words, separated
    by white space (Kaldi's `text`). Empty lines are skipped, the words come back with single spaces between
    them.

    Raises:
        DataError: the file can't be read, a line is malformed, or a name stands twice. Names the file, line,
            utterance.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"transcripts {path} can't be read: {error}", path=str(path)) from error
    entries = _json_entries(path, lines) if path.suffix == ".jsonl" else _text_entries(lines)
    transcripts: dict[str, str] = {}
    for number, name, text in entries:
        if name in transcripts:
            raise DataError(
                f"{path}, line {number}: utterance {name!r} stands twice", path=str(path), utterance=name
            )
        transcripts[name] = text
    return transcripts


def _text_entries(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if fields:
            yield number, fields[0], " ".join(fields[1:])


def _json_entries(path: Path, lines: list[str]) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: isn't JSON: {error}", path=str(path)) from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object", path=str(path))
        name, text = record.get("id"), record.get("text")
        if not isinstance(name, str) or not name or not isinstance(text, str):
            raise DataError(
                f"{path}, line {number}: needs the strings 'id' (not empty) and 'text'", path=str(path)
            )
        yield number, name, " ".join(text.split())
