"""What a report shows; nothing here knows where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from seqtrain.align import Segment

__all__ = ["AlignmentTrack", "AlignmentView", "Cell", "Curve", "Plot", "ReportData", "Table", "Tile"]


@dataclass(frozen=True)
class Tile:
    """A headline figure: `value` in large type, what it is above, a remark below."""

    label: str
    value: str
    remark: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, a remark in small type (an interval, counts), and whether it is the best of its
    kind."""

    text: str
    remark: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows; all other cells are figures. Plain strings are cells without
    remark."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """A line of a plot. Curves of the same `name` have the same colour in all plots of a report."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Plot:
    """Curves over a common axis; `y_from_zero` draws the axis down to 0. Points that aren't finite break the line."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    y_from_zero: bool = False
    note: str = ""


@dataclass(frozen=True)
class AlignmentTrack:
    """One aligner's reading of an utterance.

    Attributes:
        name: whose it is.
        words, phones: segments; either may be empty.
        occupancies: (T, V) probability of each label in each frame, in [0, 1]; None for a track without.
        labels: V names of the columns. Those that never reach `threshold` are left out of the picture.
        frame_shift: seconds between two frames of `occupancies`.
        frame_offset: seconds at which their frame 0 begins.
        threshold: see `labels`.
    """

    name: str
    words: tuple[Segment, ...] = ()
    phones: tuple[Segment, ...] = ()
    occupancies: Tensor | None = None
    labels: tuple[str, ...] = ()
    frame_shift: float = 0.0
    frame_offset: float = 0.0
    threshold: float = 0.1


@dataclass(frozen=True)
class AlignmentView:
    """An utterance: its spectrogram, and under it one track for each aligner, all on one axis of time.

    `log_mel` is (T, F), any float dtype, one frame each `frame_shift` seconds; `duration` is in seconds.
    """

    id: str
    text: str
    duration: float
    log_mel: Tensor
    frame_shift: float
    tracks: tuple[AlignmentTrack, ...]


@dataclass(frozen=True)
class ReportData:
    """A whole report.

    Attributes:
        title: of the page.
        remark: what every figure has to be read with ("one speaker"); stands beside the title and each table.
        facts: name → value of what the figures depend on: machine, versions, seed, time.
        tiles, tables, plots, alignments: the sections, in this order; empty ones are left out.
    """

    title: str
    remark: str
    facts: Mapping[str, str]
    tiles: tuple[Tile, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    alignments: tuple[AlignmentView, ...] = field(default=(), repr=False)
