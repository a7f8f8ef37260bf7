from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from seqtrain.align import Segment
from seqtrain.training.report import (
    AlignmentTrack,
    AlignmentView,
    Cell,
    Curve,
    Plot,
    ReportData,
    Table,
    Tile,
    format_report,
    write_report,
)
from seqtrain.training.report.plot import draw_plot, series_of, ticks

WORDS = (Segment("press", 1, 5, 0.03, 0.15, -0.5), Segment("<one>", 5, 9, 0.15, 0.27))
VIEW = AlignmentView(
    id="menu/1",
    text="press <one>",
    duration=0.3,
    log_mel=torch.randn(30, 40),
    frame_shift=0.01,
    tracks=(
        AlignmentTrack(
            "CTC",
            WORDS,
            (Segment("P", 1, 2, 0.03, 0.06),),
            occupancies=torch.tensor([[1.0, 0.0, 0.0]] * 6 + [[0.0, 0.0, 1.0]] * 4),
            labels=("blank", "never", "P"),
            frame_shift=0.03,
        ),
        AlignmentTrack("PocketSphinx", WORDS),
    ),
)
DATA = ReportData(
    title="a & b",
    remark="one speaker",
    facts={"machine": "2 cores", "seed": "1"},
    tiles=(Tile("CTC, std", "9.6 % PER", "8.9 % WER"),),
    tables=(
        Table(
            "Held-out set std",
            ("", "PER"),
            (("CTC", Cell("9.6 %", "8 – 11", best=True)), ("HMM", "12.2 %")),
            "394 words",
        ),
    ),
    plots=(Plot("Loss", "step", "loss", (Curve("CTC", (0.0, 1.0, 2.0), (3.0, math.nan, 1.0)),)),),
    alignments=(VIEW,),
)


def tree(page: str) -> ElementTree.Element:
    """The page's body; it is written so that it is XML as well."""
    return ElementTree.fromstring(page[page.index("<body>") : page.index("</html>")])


def texts(element: ElementTree.Element) -> list[str]:
    return [t.strip() for t in element.itertext() if t.strip()]


def test_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    write_report(tmp_path / "run" / "report.html", DATA)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert page == format_report(DATA)
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert "@import" not in page
    references = re.findall(r'(?:src|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert references
    assert all(reference.startswith("data:image/png;base64,") for reference in references)
    assert "prefers-color-scheme: dark" in page


def test_everything_given_is_on_the_page() -> None:
    found = texts(tree(format_report(DATA)))
    for expected in (
        "a & b", "one speaker", "9.6 % PER", "8.9 % WER", "Held-out set std", "one speaker; 394 words", "8 – 11",
        "12.2 %", "Loss", "press <one>", "menu/1 · 0.30 s", "CTC", "PocketSphinx", "machine", "2 cores",
    ):  # fmt: skip
        assert expected in found
    assert "<b>9.6 %</b>" in format_report(DATA)


def test_an_empty_report_is_a_page() -> None:
    body = tree(format_report(ReportData("nothing", "", {})))
    assert texts(body) == ["nothing"]
    assert body.find(".//section") is None


def test_occupancies_show_the_labels_that_occur_in_their_order() -> None:
    body = tree(format_report(DATA))
    rows = [t.text for t in body.iterfind(".//text[@class='row']")]
    assert rows == ["blank", "P"]
    assert len(list(body.iterfind(".//image"))) == 2


def test_segments_lie_where_their_times_say() -> None:
    figure = tree(format_report(DATA)).find(".//figure[@class='alignment']")
    assert figure is not None
    boxes = list(figure.iterfind(".//rect[@class='word']"))
    image = figure.find(".//image")
    assert image is not None
    scale = float(image.attrib["width"]) / 0.3
    assert [float(box.attrib["x"]) for box in boxes[:2]] == pytest.approx(
        [0.03 * scale + 0.5, 0.15 * scale + 0.5], abs=0.01
    )
    assert float(boxes[0].attrib["width"]) == pytest.approx(0.12 * scale - 1, abs=0.01)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (0.0, 2000.0, [0, 500, 1000, 1500, 2000]),
        (-1.7, 0.1, [-2, -1.5, -1, -0.5, 0, 0.5]),
        (3.0, 3.0, [1, 2, 3, 4, 5]),
        (0.0, 0.0, [-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6]),
    ],
)
def test_ticks_are_round_and_span_the_values(low: float, high: float, expected: list[float]) -> None:
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert found == pytest.approx(expected)


def test_a_plot_breaks_where_a_value_is_missing_and_keeps_colours_by_name() -> None:
    plots = [
        Plot("a", "step", "loss", (Curve("CTC", (0.0, 1.0, 2.0, 3.0), (1.0, 2.0, math.nan, 0.5)),)),
        Plot("b", "step", "PER", (Curve("HMM", (0.0,), (1.0,)), Curve("CTC", (0.0,), (1.0,)))),
    ]
    series = series_of(plots)
    assert series == {"CTC": 1, "HMM": 2}
    figure = ElementTree.fromstring(draw_plot(plots[0], series))
    lines = [line.attrib["points"].split() for line in figure.iterfind(".//polyline")]
    assert [len(line) for line in lines] == [2, 1]
    assert texts(ElementTree.fromstring(draw_plot(Plot("c", "x", "y", ()), {}))) == [
        "c",
        "nothing measured yet",
    ]


def test_long_curves_are_thinned_by_means() -> None:
    steps = tuple(float(i) for i in range(10_000))
    curve = Curve("CTC", steps, tuple(i % 2 * 2.0 for i in range(10_000)))
    figure = ElementTree.fromstring(draw_plot(Plot("a", "step", "loss", (curve,)), {"CTC": 1}))
    dots = [dot.findtext("title", "") for dot in figure.iterfind(".//circle")]
    assert len(dots) == 400
    assert dots[0] == "CTC\nstep 12: 0.96"
