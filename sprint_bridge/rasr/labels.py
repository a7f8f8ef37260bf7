"""The label inventory that goes with a RASR setup, which RASR itself doesn't tell."""

from __future__ import annotations

import json
from pathlib import Path

from seqtrain.errors import ArgumentError, DataError
from seqtrain.lexicon import LabelInventory

__all__ = ["read_label_inventory"]


def read_label_inventory(
    path: Path, *, silence: str | None = None, blank: str | None = None
) -> LabelInventory:
    """Reads labels, in the order of the emission classes, which are the columns of the scores.

    Args:
        path: UTF-8, one label a line; or, where the name ends in .json, a list of strings, as `sprint-bridge export`
            writes it.
        silence, blank: the labels of silence and blank, or None where there is no such.

    Raises:
        DataError: the file can't be read, or has an empty label, one twice, or lacks `silence` or `blank`.
    """
    try:
        text = path.read_text(encoding="utf-8")
        labels = (
            _json_labels(text) if path.suffix == ".json" else [line.strip() for line in text.splitlines()]
        )
    except (OSError, ValueError) as error:
        raise DataError(f"labels {path} can't be read: {error}", path=str(path)) from error
    if not labels or "" in labels:
        where = f"number {labels.index('')} is empty" if labels else "there are none"
        raise DataError(f"labels {path}: {where}; each is the label of a column", path=str(path))
    try:
        inventory = LabelInventory(tuple(labels))
        return LabelInventory(
            tuple(labels),
            silence=None if silence is None else inventory.index(silence),
            blank=None if blank is None else inventory.index(blank),
        )
    except ArgumentError as error:
        raise DataError(f"labels {path}: {error}", path=str(path)) from error


def _json_labels(text: str) -> list[str]:
    values = json.loads(text)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("it isn't a list of strings")
    return values
