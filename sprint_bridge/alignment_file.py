"""Files of alignments: the label of each frame of each segment."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import DataError

__all__ = ["read_alignments"]


def read_alignments(path: Path, *, num_labels: int) -> dict[str, NDArray[np.int32]]:
    """Reads alignments: segment → labels (T,) int32, one a frame.

    Where the name ends in `.jsonl`, each line is an object `{"segment": name, "labels": [label, …]}`; where
    it ends in `.npz`, each array of integers has the name of its segment.

    Raises:
        DataError: the file can't be read or is malformed, a segment stands twice, a label isn't in 0 …
            num_labels - 1.
    """
    if path.suffix == ".jsonl":
        found = _read_jsonl(path)
    elif path.suffix == ".npz":
        found = _read_npz(path)
    else:
        raise DataError(f"alignments {path} must end in .jsonl or .npz", path=str(path))
    return {segment: _labels(path, segment, values, num_labels) for segment, values in found.items()}


def _read_jsonl(path: Path) -> dict[str, object]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"alignments {path} can't be read: {error}", path=str(path)) from error
    found: dict[str, object] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: isn't JSON: {error}", path=str(path)) from error
        segment = record.get("segment") if isinstance(record, dict) else None
        if not isinstance(segment, str) or not segment:
            raise DataError(f"{path}, line {number}: needs the string 'segment'", path=str(path))
        if segment in found:
            raise DataError(
                f"{path}, line {number}: segment {segment!r} stands twice", path=str(path), utterance=segment
            )
        found[segment] = record.get("labels")
    return found


def _read_npz(path: Path) -> dict[str, object]:
    try:
        # Without pickles: an array of objects would run code when it is read.
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"alignments {path} can't be read: {error}", path=str(path)) from error


def _labels(path: Path, segment: str, values: Any, num_labels: int) -> NDArray[np.int32]:
    problem = None
    if isinstance(values, list) and not all(type(value) is int for value in values):
        problem = "labels must be integers"
    elif not isinstance(values, list | np.ndarray):
        problem = "needs the list 'labels'"
    else:
        labels = np.asarray(values, dtype=np.int64 if isinstance(values, list) else None)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            problem = f"expected one integer a frame, found an array of {labels.dtype}, shape {labels.shape}"
        elif labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < num_labels:
            problem = f"labels go from {labels.min()} to {labels.max()}, and there are {num_labels}"
        else:
            return labels.astype(np.int32)
    raise DataError(f"{path}, segment {segment!r}: {problem}", path=str(path), utterance=segment)
