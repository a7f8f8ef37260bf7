"""Praat's TextGrid, long text format: a tier of words and a tier of phones for each utterance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from seqtrain.align.segments import AlignedUtterance, Segment
from seqtrain.errors import ArgumentError
from seqtrain.files import replace_file

__all__ = ["format_textgrid", "write_textgrids"]


def format_textgrid(utterance: AlignedUtterance) -> str:
    """The text of a TextGrid; what lies between segments becomes an interval with an empty label.

    The last frame may reach past the end of the audio; the intervals are cut there.

    Raises:
        ArgumentError: the duration isn't positive, or segments overlap.
    """
    if not utterance.duration_s > 0.0:
        raise ArgumentError(
            f"utterance {utterance.id!r} lasts {utterance.duration_s} s; "
            "a TextGrid needs a positive duration",
            argument="utterance",
        )
    tiers = [("words", utterance.words)] + ([("phones", utterance.phones)] if utterance.phones else [])
    end = _seconds(utterance.duration_s)
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {end}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for number, (name, segments) in enumerate(tiers, start=1):
        intervals = _tile(segments, utterance.duration_s, utterance.id)
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f'        name = "{name}"',
            "        xmin = 0",
            f"        xmax = {end}",
            f"        intervals: size = {len(intervals)}",
        ]
        for i, (start_s, end_s, symbol) in enumerate(intervals, start=1):
            text = symbol.replace('"', '""')
            lines += [
                f"        intervals [{i}]:",
                f"            xmin = {_seconds(start_s)}",
                f"            xmax = {_seconds(end_s)}",
                f'            text = "{text}"',
            ]
    return "\n".join(lines) + "\n"


def _seconds(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _tile(segments: Sequence[Segment], duration: float, name: str) -> list[tuple[float, float, str]]:
    """Intervals that cover 0 … duration without a hole."""
    intervals = []
    position = 0.0
    for segment in segments:
        start, end = min(segment.start_s, duration), min(segment.end_s, duration)
        # Times are sums of binary fractions: a difference below a microsecond is none.
        if start < position - 1e-6:
            raise ArgumentError(
                f"utterance {name!r}: {segment.symbol!r} begins at {start:.3f} s, "
                f"before the segment in front of it ends ({position:.3f} s)",
                argument="utterance",
            )
        if start > position + 1e-6:
            intervals.append((position, start, ""))
        else:
            start = position
        if end > start + 1e-6:
            intervals.append((start, end, segment.symbol))
            position = end
    if duration > position + 1e-6:
        intervals.append((position, duration, ""))
    return intervals


def write_textgrids(directory: str | Path, utterances: Iterable[AlignedUtterance]) -> list[Path]:
    """Writes `directory/<utterance id>.TextGrid` for each utterance; a slash in an id makes a folder.

    Raises:
        ArgumentError: an id would lead out of `directory`, or what `format_textgrid` refuses.
    """
    directory = Path(directory)
    paths = []
    for utterance in utterances:
        parts = Path(utterance.id).parts
        if not parts or ".." in parts or Path(utterance.id).is_absolute():
            raise ArgumentError(f"utterance id {utterance.id!r} is no name for a file", argument="utterances")
        path = directory / f"{utterance.id}.TextGrid"
        replace_file(path, format_textgrid(utterance).encode())
        paths.append(path)
    return paths
