from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from seqtrain.align.ctm import format_ctm, write_ctm
from seqtrain.align.jsonl import write_jsonl
from seqtrain.align.segments import AlignedUtterance, Segment
from seqtrain.align.textgrid import format_textgrid, write_textgrids
from seqtrain.errors import ArgumentError

PRESS = Segment("press", 1, 5, 0.03, 0.15, -0.5)
ONE = Segment('"one"', 5, 9, 0.15, 0.27)
UTTERANCE = AlignedUtterance(
    "menu/press-1", 0.25, (PRESS, ONE), (Segment("P", 1, 3, 0.03, 0.09), Segment("R", 4, 5, 0.12, 0.15)), -7.0
)


def test_ctm_lines() -> None:
    assert format_ctm([UTTERANCE]) == ('menu/press-1 1 0.030 0.120 press\nmenu/press-1 1 0.150 0.120 "one"\n')
    assert format_ctm([UTTERANCE], tier="phones", channel="A") == (
        "menu/press-1 A 0.030 0.060 P\nmenu/press-1 A 0.120 0.030 R\n"
    )


def test_ctm_segments_that_touch_still_touch_when_rounded() -> None:
    shift = 1 / 3000
    pieces = tuple(Segment("a", t, t + 1, t * shift, (t + 1) * shift) for t in range(200))
    end = 0.0
    for line in format_ctm([AlignedUtterance("u", 1.0, pieces)]).splitlines():
        start, duration = (float(field) for field in line.split()[2:4])
        assert start == pytest.approx(end, abs=1e-9)
        end = start + duration


def test_ctm_refuses_names_with_white_space() -> None:
    with pytest.raises(ArgumentError, match="can't carry the name 'press one'"):
        format_ctm([AlignedUtterance("u", 1.0, (Segment("press one", 0, 1, 0.0, 0.1),))])


def read_textgrid(text: str) -> dict[str, list[tuple[float, float, str]]]:
    tiers = {}
    for tier in re.split(r"    item \[\d+\]:\n", text)[1:]:
        name = re.search(r'name = "(.*)"', tier)
        assert name is not None
        intervals = re.findall(r'xmin = (\S+)\n\s+xmax = (\S+)\n\s+text = "(.*)"', tier)
        size = re.search(r"intervals: size = (\d+)", tier)
        assert size is not None
        assert int(size[1]) == len(intervals)
        tiers[name[1]] = [(float(a), float(b), label.replace('""', '"')) for a, b, label in intervals]
    return tiers


def test_textgrid_tiles_the_audio_and_cuts_at_its_end() -> None:
    tiers = read_textgrid(format_textgrid(UTTERANCE))
    assert tiers == {
        "words": [(0.0, 0.03, ""), (0.03, 0.15, "press"), (0.15, 0.25, '"one"')],
        "phones": [(0.0, 0.03, ""), (0.03, 0.09, "P"), (0.09, 0.12, ""), (0.12, 0.15, "R"), (0.15, 0.25, "")],
    }


def test_textgrid_without_phones_or_words() -> None:
    assert read_textgrid(format_textgrid(AlignedUtterance("u", 1.5, ()))) == {"words": [(0.0, 1.5, "")]}


def test_textgrid_refuses_overlap_and_empty_audio() -> None:
    with pytest.raises(ArgumentError, match=r"'b' begins at 0\.100 s, before .* ends \(0\.200 s\)"):
        format_textgrid(
            AlignedUtterance("u", 1.0, (Segment("a", 0, 2, 0.0, 0.2), Segment("b", 1, 3, 0.1, 0.3)))
        )
    with pytest.raises(ArgumentError, match=r"'u' lasts 0\.0 s"):
        format_textgrid(AlignedUtterance("u", 0.0, ()))


def test_files(tmp_path: Path) -> None:
    write_ctm(tmp_path / "out" / "words.ctm", [UTTERANCE])
    assert (tmp_path / "out" / "words.ctm").read_text() == format_ctm([UTTERANCE])
    assert write_textgrids(tmp_path, [UTTERANCE]) == [tmp_path / "menu" / "press-1.TextGrid"]
    assert (tmp_path / "menu" / "press-1.TextGrid").read_text() == format_textgrid(UTTERANCE)
    write_jsonl(tmp_path / "a.jsonl", [UTTERANCE, UTTERANCE])
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert len(lines) == 2
    record = json.loads(lines[1])
    assert record["id"] == "menu/press-1"
    assert record["words"][0] == {
        "symbol": "press",
        "start_frame": 1,
        "end_frame": 5,
        "start_s": 0.03,
        "end_s": 0.15,
        "score": -0.5,
    }
    assert record["words"][1]["score"] is None


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", ""])
def test_textgrid_files_stay_in_their_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArgumentError, match="no name for a file"):
        write_textgrids(tmp_path, [AlignedUtterance(name, 1.0, ())])
