"""CTM, the time-marked format of NIST: a line `utterance channel start duration symbol` for each segment."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from seqtrain.align.segments import AlignedUtterance
from seqtrain.errors import ArgumentError
from seqtrain.files import replace_file

__all__ = ["format_ctm", "write_ctm"]


def format_ctm(
    utterances: Iterable[AlignedUtterance], *, tier: Literal["words", "phones"] = "words", channel: str = "1"
) -> str:
    """The text of a CTM file: times in seconds with three decimals, in the order given.

    There is no confidence column: the score of a segment is no probability where a prior was subtracted.

    Raises:
        ArgumentError: a name or symbol is empty or holds white space, which the format can't carry.
    """
    lines = []
    for utterance in utterances:
        for segment in utterance.words if tier == "words" else utterance.phones:
            for name in (utterance.id, channel, segment.symbol):
                if name.split() != [name]:
                    raise ArgumentError(
                        f"CTM can't carry the name {name!r}: it has white space", argument="utterances"
                    )
            # Rounded ends, so that segments which touch still do.
            start, end = round(segment.start_s, 3), round(segment.end_s, 3)
            lines.append(f"{utterance.id} {channel} {start:.3f} {end - start:.3f} {segment.symbol}\n")
    return "".join(lines)


def write_ctm(
    path: str | Path,
    utterances: Iterable[AlignedUtterance],
    *,
    tier: Literal["words", "phones"] = "words",
    channel: str = "1",
) -> None:
    """Writes `format_ctm` to `path`."""
    replace_file(Path(path), format_ctm(utterances, tier=tier, channel=channel).encode())
