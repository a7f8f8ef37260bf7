"""The report of a run: one self-contained HTML page with error rates, curves and alignments."""

from seqtrain.training.report.data import (
    AlignmentTrack,
    AlignmentView,
    Cell,
    Curve,
    Plot,
    ReportData,
    Table,
    Tile,
)
from seqtrain.training.report.page import format_report, write_report

__all__ = [
    "AlignmentTrack",
    "AlignmentView",
    "Cell",
    "Curve",
    "Plot",
    "ReportData",
    "Table",
    "Tile",
    "format_report",
    "write_report",
]
