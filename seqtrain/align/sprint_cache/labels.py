"""Alignments of a cache and labels of frames, one into the other.

Labels are columns of the scores. An emission is one already, where the model's state tying counts as our inventory
does: phonemes in the order of the Bliss lexicon, and each one's states after each other (RASR's `monophone`). An
allophone state becomes one by its name, which loses what the inventory doesn't tell apart, the context say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from seqtrain.align.sprint_cache.alignment import Kind, SprintAlignment
from seqtrain.align.sprint_cache.allophones import Allophones, AllophoneState
from seqtrain.align.sprint_cache.archive import archive_error
from seqtrain.errors import ArgumentError, ShapeError
from seqtrain.lexicon.inventory import LabelInventory

__all__ = [
    "Columns",
    "columns_of",
    "frame_labels",
    "from_frame_labels",
    "from_soft_labels",
    "soft_labels",
    "states_of",
]

_MOST_COLUMNS = 1 << 31

Columns: TypeAlias = Callable[[int], int]
"""From a label of a cache to the column of the scores; raises KeyError or ArgumentError for one that has none."""


def columns_of(
    alignment: SprintAlignment, inventory: LabelInventory, allophones: Allophones | None = None
) -> Columns:
    """How the labels of an alignment become columns of an inventory.

    An allophone state's column is that of the label `phone.state`, or `phone` where it has one state; at the end of a
    word that of `phone@eow.state` where the inventory has it.

    Args:
        allophones: the list that the ids count, for allophone states whose names the alignment doesn't carry itself.

    Raises:
        ArgumentError: `allophones` is needed and missing.
    """
    if alignment.kind == "emission":
        return lambda label: _emission_column(label, inventory)
    states = states_of(alignment, allophones)
    return lambda label: _state_column(states(label), inventory)


def states_of(
    alignment: SprintAlignment, allophones: Allophones | None = None
) -> Callable[[int], AllophoneState]:
    """How the labels of an alignment of allophone states become those states; raises ArgumentError for one of none.

    Args:
        allophones: see `columns_of`.

    Raises:
        ArgumentError: `allophones` is needed and missing.
    """
    alphabet = alignment.alphabet
    if alphabet is not None:
        return lambda label: _named_state(label, alphabet)
    if allophones is None:
        raise ArgumentError(
            "the labels are ids of allophone states, which mean nothing without allophones, the list that they count",
            argument="allophones",
        )
    return allophones.state


def _named_state(label: int, alphabet: Mapping[int, str]) -> AllophoneState:
    if label not in alphabet:
        raise ArgumentError(
            f"label {label} isn't one of the {len(alphabet)} that the alphabet names", argument="label"
        )
    return AllophoneState.parse(alphabet[label])


def _emission_column(label: int, inventory: LabelInventory) -> int:
    if label >= len(inventory):
        raise ArgumentError(f"label {label} is no column: there are {len(inventory)}", argument="label")
    return label


def _state_column(state: AllophoneState, inventory: LabelInventory) -> int:
    phone = state.allophone.phone
    names = [f"{phone}.{state.state}"]
    if state.allophone.final:
        names.insert(0, f"{phone}@eow.{state.state}")
    if state.state == 0:
        names.append(phone)
    for name in names:
        with suppress(ArgumentError):
            return inventory.index(name)
    raise ArgumentError(
        f"allophone state {state}: there is no label {' or '.join(map(repr, names))} among {len(inventory)}",
        argument="inventory",
    )


def frame_labels(
    alignment: SprintAlignment, columns: Columns, *, path: str | None = None, name: str | None = None
) -> NDArray[np.int32]:
    """(T,) int32, the column of each frame, of an alignment with one label a frame.

    Args:
        alignment: without weights.
        columns: the column of a label, see `columns_of`.
        path, name: of the archive and the entry, for errors.

    Raises:
        DataError: it has weights, frames without a label or with several, or a label that has no column.
    """
    if alignment.weights is not None:
        raise archive_error(
            path, "is weighted, it has no single label for a frame; see soft_labels", entry=name
        )
    order = np.argsort(alignment.times, kind="stable")
    times = alignment.times[order]
    wrong = np.flatnonzero(times != np.arange(len(times)))
    if wrong.size:
        frame = min(int(wrong[0]), int(times[wrong[0]]))
        several = frame != wrong[0]
        raise archive_error(
            path, f"frame {frame} has {'several labels' if several else 'no label'}", entry=name
        )
    return _mapped(alignment, columns, path, name)[order].astype(np.int32)


def soft_labels(
    alignment: SprintAlignment,
    columns: Columns,
    *,
    num_labels: int,
    path: str | None = None,
    name: str | None = None,
) -> NDArray[np.float32]:
    """(T, num_labels) float32, the probability of each column in each frame; rows sum to 1.

    Weights of labels that share a column add up. The aligner leaves out the smallest ones, and rows are scaled back to
    a sum of 1. Without weights, the one label of a frame gets all.

    Args:
        alignment: weighted or not.
        columns: the column of a label, see `columns_of`.
        num_labels: V.
        path, name: of the archive and the entry, for errors.

    Raises:
        DataError: a frame has no label or no weight, a label has no column.
    """
    present = np.unique(alignment.times)
    missing = np.flatnonzero(present != np.arange(len(present)))
    if missing.size:
        raise archive_error(path, f"frame {missing[0]} has no label", entry=name)
    weights = np.ones(len(alignment)) if alignment.weights is None else alignment.weights.astype(np.float64)
    column = _mapped(alignment, columns, path, name)
    if column.size and int(column.max()) >= num_labels:
        raise archive_error(
            path, f"a label has the column {column.max()}, and there are {num_labels}", entry=name
        )
    soft = np.zeros((len(present), num_labels))
    np.add.at(soft, (alignment.times, column), weights)
    sums = soft.sum(axis=1)
    if not np.all(sums > 0):
        raise archive_error(
            path, f"the weights of frame {int(np.flatnonzero(~(sums > 0))[0])} are all 0", entry=name
        )
    soft /= sums[:, None]
    return soft.astype(np.float32)


def _mapped(
    alignment: SprintAlignment, columns: Columns, path: str | None, name: str | None
) -> NDArray[np.int64]:
    known, place = np.unique(alignment.labels, return_inverse=True)
    found = np.empty(len(known), dtype=np.int64)
    for position, label in enumerate(known.tolist()):
        try:
            found[position] = columns(label)
        except KeyError as error:
            raise archive_error(path, f"label {label} has no column", entry=name) from error
        except ArgumentError as error:
            raise archive_error(path, str(error), entry=name) from error
        if not 0 <= found[position] < _MOST_COLUMNS:
            raise archive_error(path, f"label {label} has the column {found[position]}", entry=name)
    return found[place.reshape(-1)]


def from_frame_labels(
    labels: NDArray[np.integer], *, kind: Kind = "emission", ids: NDArray[np.integer] | None = None
) -> SprintAlignment:
    """The alignment of a label path; the inverse of `frame_labels`.

    Args:
        labels: (T,) the column of each frame.
        kind: what the ids are.
        ids: (V,) the emission or allophone state of each column; None: the columns themselves.

    Raises:
        ArgumentError, ShapeError: labels aren't (T,) columns that have an id of 32 bits.
    """
    if labels.ndim != 1:
        raise ShapeError(f"labels must be (T,), got {labels.shape}", argument="labels")
    return SprintAlignment(kind, np.arange(len(labels), dtype=np.int64), _identified(labels, ids))


def from_soft_labels(
    posteriors: NDArray[np.floating],
    *,
    kind: Kind = "emission",
    ids: NDArray[np.integer] | None = None,
    least: float = 0.0,
) -> SprintAlignment:
    """The weighted alignment of label posteriors; the inverse of `soft_labels` where nothing is left out.

    Args:
        posteriors: (T, V) probabilities.
        kind, ids: as of `from_frame_labels`.
        least: what isn't larger is left out, a frame's largest aside.

    Raises:
        ArgumentError, ShapeError: posteriors aren't (T, V) numbers that are finite and not negative.
    """
    values = np.asarray(posteriors, dtype=np.float32)
    if values.ndim != 2:
        raise ShapeError(f"posteriors must be (T, V), got {values.shape}", argument="posteriors")
    if not np.all((values >= 0) & np.isfinite(values)):
        raise ArgumentError("posteriors must be finite and not negative", argument="posteriors")
    kept = values > least
    if values.size:
        kept[np.arange(len(values)), values.argmax(axis=1)] = True
    times, columns = np.nonzero(kept)
    return SprintAlignment(kind, times.astype(np.int64), _identified(columns, ids), values[times, columns])


def _identified(columns: NDArray[np.integer], ids: NDArray[np.integer] | None) -> NDArray[np.uint32]:
    """The ids of columns."""
    limit, what = (
        (1 << 32, "ids have 32 bits") if ids is None else (len(ids), f"ids are given for {len(ids)}")
    )
    if columns.size and not 0 <= int(columns.min()) <= int(columns.max()) < limit:
        raise ArgumentError(f"labels go from {columns.min()} to {columns.max()}; {what}", argument="labels")
    return (columns if ids is None else _identified(ids[columns], None)).astype(np.uint32)
