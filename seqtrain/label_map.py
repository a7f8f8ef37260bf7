"""What becomes of labels before sequences are compared: other labels, classes, or nothing."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

import torch

from seqtrain.errors import ArgumentError

__all__ = ["DELETED", "LabelMap", "label_table"]

LabelMap = Mapping[int, int | None] | Sequence[int | None]
"""The new label of each old one, 0 … n - 1; None deletes the label."""

DELETED = -1
"""What `label_table` has for None."""


def label_table(label_map: LabelMap) -> torch.Tensor:
    """(n,) int64 new labels, DELETED for None."""
    count = len(label_map)
    if isinstance(label_map, Mapping):
        missing = set(range(count)) - set(label_map)
        if missing:
            raise ArgumentError(
                f"label_map has {count} keys, which must be 0 … {count - 1}, but {min(missing)} is missing",
                argument="label_map",
            )
    table = []
    for old in range(count):
        new = label_map[old]
        try:
            label = DELETED if new is None else operator.index(new)
        except TypeError:
            label = -2
        if label < DELETED or (label == DELETED and new is not None):
            raise ArgumentError(
                f"label_map leads from {old} to {new!r}, which must be a label, 0 or above, or None to delete it",
                argument="label_map",
            )
        table.append(label)
    return torch.tensor(table, dtype=torch.int64)
