"""From one unit a frame to segments in time.

Frame t covers the time from frame_offset + t · frame_shift to frame_offset + (t + 1) · frame_shift. A segment begins
with the first frame of its unit and ends behind the last one; frames of no unit (silence, blank) inside a unit belong
to it, others to no segment.

With CTC the network decides by itself where a label shows: usually in one frame, somewhere within the phone or after
it. The same rule then gives a word that begins with the first frame of its first phone and ends behind the last frame
of its last phone, which may be some tens of milliseconds beside the truth; no blank frame is added, since nothing
says which word it belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seqtrain.errors import ArgumentError, ShapeError

__all__ = ["AlignedUtterance", "Segment", "ctc_units", "segments"]

Units = Tensor | NDArray[np.integer] | Sequence[int]


@dataclass(frozen=True)
class Segment:
    """A unit's stretch of time.

    Frames `start_frame` … `end_frame - 1`, seconds `start_s` … `end_s`. `score` is the mean natural-log score of its
    frames, None where no scores were given.
    """

    symbol: str
    start_frame: int
    end_frame: int
    start_s: float
    end_s: float
    score: float | None = None

    @property
    def duration_s(self) -> float:
        """Seconds from start to end."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class AlignedUtterance:
    """The words and phones of an utterance in time; `score` is the log score of the whole path where known."""

    id: str
    duration_s: float
    words: tuple[Segment, ...]
    phones: tuple[Segment, ...] = ()
    score: float | None = None


def _integers(units: Units, name: str) -> NDArray[np.int64]:
    array = units.detach().cpu().numpy() if isinstance(units, Tensor) else np.asarray(units, dtype=np.int64)
    if array.ndim != 1:
        raise ShapeError(f"{name} must be (T,), got shape {array.shape}", argument=name)
    return array.astype(np.int64)


def segments(
    units: Units,
    symbols: Sequence[str],
    *,
    frame_shift: float,
    frame_offset: float = 0.0,
    frame_scores: Tensor | None = None,
) -> tuple[Segment, ...]:
    """One segment for each unit that has a frame, in order of time.

    Args:
        units: (T,) integers: which unit a frame belongs to, as an index into `symbols`; -1 for none. They don't
            decrease.
        symbols: the names of the units, one for each *occurrence*: a word said twice stands there twice.
        frame_shift: seconds between frames of the scores (subsampling included).
        frame_offset: seconds at which frame 0 begins; negative where frames are centred on the first feature of each
            stride, say. What would lie before 0 is cut off.
        frame_scores: (T,) log score of each frame.

    Raises:
        ArgumentError: `frame_shift` isn't positive, a unit is no index into `symbols` or stands after a later one.
        ShapeError: the shapes don't fit each other.
    """
    if not (frame_shift > 0.0 and math.isfinite(frame_shift)):
        raise ArgumentError(
            f"frame_shift is in seconds and positive, got {frame_shift}", argument="frame_shift"
        )
    unit = _integers(units, "units")
    scores = None if frame_scores is None else frame_scores.detach().double().cpu().numpy()
    if scores is not None and scores.shape != unit.shape:
        raise ShapeError(
            f"frame_scores must be ({len(unit)},) like units, got {scores.shape}", argument="frame_scores"
        )
    frames = np.flatnonzero(unit >= 0)
    order = unit[frames]
    if order.size and int(order.max()) >= len(symbols):
        raise ArgumentError(
            f"unit {int(order.max())} has no name: there are {len(symbols)} symbols", argument="units"
        )
    if np.any(np.diff(order) < 0):
        frame = int(frames[1:][np.diff(order) < 0][0])
        raise ArgumentError(
            f"frame {frame} goes back to unit {int(unit[frame])}: a unit's frames must lie together",
            argument="units",
        )
    numbers, first = np.unique(order, return_index=True)
    last = np.append(first[1:], len(order))[: len(numbers)] - 1
    found = []
    for number, start, end in zip(
        numbers.tolist(), frames[first].tolist(), (frames[last] + 1).tolist(), strict=True
    ):
        score = None if scores is None else float(scores[start:end].mean())
        start_s, end_s = (max(frame_offset + frame * frame_shift, 0.0) for frame in (start, end))
        found.append(Segment(symbols[number], start, end, start_s, end_s, score))
    return tuple(found)


def ctc_units(labels: Units, *, blank: int = 0) -> NDArray[np.int64]:
    """(T,) which target each frame of a CTC label path belongs to, counted from 0; -1 for blank.

    A frame begins the next target where its label is no blank and differs from the frame before. Entries below 0 (the
    padding of `Alignment.labels`) are read as blank.
    """
    label = _integers(labels, "labels")
    shown = (label != blank) & (label >= 0)
    begins = shown & np.append(True, label[1:] != label[:-1])[: len(label)]
    return np.where(shown, np.cumsum(begins) - 1, -1)
