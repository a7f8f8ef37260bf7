"""Manifests: one JSON object per line, one line per utterance."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path

from seqtrain.data.utterance import Utterance
from seqtrain.errors import DataError
from seqtrain.files import replace_file

__all__ = ["read_manifest", "write_manifest"]

_REQUIRED: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "audio": (str,),
    "text": (str,),
    "duration": (int, float),
}
_OPTIONAL = ("speaker",)


def read_manifest(path: str | Path) -> list[Utterance]:
    """Reads a JSONL manifest; relative audio paths are taken from the manifest's own folder.

    Raises:
        DataError: the file is missing or isn't UTF-8; a line isn't a JSON object; a field is missing, unknown
            or of the wrong type; a duration isn't positive; two lines have the same id. Names the file, the
            line, the utterance.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            f"manifest {path} doesn't exist; run the recipe's prepare stage", path=str(path)
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"manifest {path} can't be read: {error}", path=str(path)) from error

    utterances: list[Utterance] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        utterance = _parse(line, number, path)
        if utterance.id in line_of:
            raise DataError(
                f"{path}, line {number}: utterance {utterance.id!r} stands already in line "
                f"{line_of[utterance.id]}; ids must be unique",
                path=str(path),
                utterance=utterance.id,
            )
        line_of[utterance.id] = number
        utterances.append(utterance)
    return utterances


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Writes a JSONL manifest atomically; audio below the manifest's folder (or beside it) is stored relative
    to it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent.resolve()
    lines = []
    for utterance in utterances:
        record = {
            "id": utterance.id,
            "audio": os.path.relpath(utterance.audio.resolve(), folder),
            "text": utterance.text,
            "duration": utterance.duration,
            "speaker": utterance.speaker,
        }
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    replace_file(path, "".join(lines).encode())


def _parse(line: str, number: int, path: Path) -> Utterance:
    def fail(reason: str, utterance: str | None = None) -> DataError:
        name = f", utterance {utterance!r}" if utterance is not None else ""
        return DataError(f"{path}, line {number}{name}: {reason}", path=str(path), utterance=utterance)

    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise fail(f"isn't JSON: {error}") from error
    if not isinstance(record, dict):
        raise fail(f"expected a JSON object, found {type(record).__name__}")
    utterance = record["id"] if isinstance(record.get("id"), str) else None

    for field, kind in _REQUIRED.items():
        if field not in record:
            raise fail(f"field {field!r} is missing; needed are {', '.join(_REQUIRED)}", utterance)
        if not isinstance(record[field], kind) or isinstance(record[field], bool):
            raise fail(f"field {field!r} has the value {record[field]!r}, which isn't of its type", utterance)
    for field in record:
        if field not in _REQUIRED and field not in _OPTIONAL:
            known = ", ".join([*_REQUIRED, *_OPTIONAL])
            raise fail(f"field {field!r} is unknown; known are {known}", utterance)
    if not record["id"]:
        raise fail("the id is empty")
    duration = float(record["duration"])
    if not (math.isfinite(duration) and duration > 0):
        raise fail(f"duration is {record['duration']!r}; it must be a positive number of seconds", utterance)
    speaker = record.get("speaker", "")
    if not isinstance(speaker, str):
        raise fail(f"field 'speaker' has the value {speaker!r}, which isn't a string", utterance)
    return Utterance(
        id=record["id"],
        audio=path.parent / record["audio"],
        text=" ".join(record["text"].split()),
        duration=duration,
        speaker=speaker,
    )
