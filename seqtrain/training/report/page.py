"""The page: one HTML file that needs nothing but itself."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from seqtrain.files import replace_file
from seqtrain.training.report.alignment import draw_alignment
from seqtrain.training.report.data import Cell, ReportData, Table, Tile
from seqtrain.training.report.markup import element, text
from seqtrain.training.report.plot import draw_plot, series_of

__all__ = ["format_report", "write_report"]


def format_report(data: ReportData) -> str:
    """The report as an HTML document without a single outside resource or script."""
    series = series_of(data.plots)
    body = _header(data)
    if data.tiles:
        body += element("div", "".join(map(_tile, data.tiles)), class_="tiles")
    tables = "".join(_table(table, data.remark) for table in data.tables)
    body += _section("Error rates", element("div", tables, class_="tables") if tables else "")
    plots = "".join(draw_plot(plot, series) for plot in data.plots)
    body += _section("Training", element("div", plots, class_="plots") if plots else "")
    body += _section("Alignments", "".join(map(draw_alignment, data.alignments)))
    facts = "".join(element("dt", text(k)) + element("dd", text(v)) for k, v in data.facts.items())
    body += element("footer", element("dl", facts))
    style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        + element("title", text(data.title))
        + element("style", style)
    )
    return (
        "<!doctype html>\n"
        + element("html", element("head", head) + element("body", element("main", body)), lang="en")
        + "\n"
    )


def write_report(path: str | Path, results: ReportData) -> None:
    """Writes `format_report` to `path`."""
    replace_file(Path(path), format_report(results).encode())


def _header(data: ReportData) -> str:
    remark = element("p", text(data.remark), class_="remark") if data.remark else ""
    return element("header", element("h1", text(data.title)) + remark)


def _section(title: str, content: str) -> str:
    return element("section", element("h2", text(title)) + content) if content else ""


def _tile(tile: Tile) -> str:
    return element(
        "div",
        element("span", text(tile.label), class_="what")
        + element("strong", text(tile.value))
        + element("span", text(tile.remark), class_="note"),
        class_="tile",
    )


def _table(table: Table, remark: str) -> str:
    head = element(
        "thead", element("tr", "".join(element("th", text(c), scope="col") for c in table.columns))
    )
    rows = []
    for row in table.rows:
        cells = [_cell(c, "th" if i == 0 else "td") for i, c in enumerate(row)]
        rows.append(element("tr", "".join(cells)))
    notes = "; ".join(note for note in (remark, table.note) if note)
    caption = element(
        "caption", element("h3", text(table.title)) + element("span", text(notes), class_="note")
    )
    return element("div", element("table", caption + head + element("tbody", "".join(rows))), class_="scroll")


def _cell(cell: str | Cell, name: str) -> str:
    if isinstance(cell, str):
        cell = Cell(cell)
    value = element("b", text(cell.text)) if cell.best else text(cell.text)
    remark = element("small", text(cell.remark)) if cell.remark else ""
    return element(name, value + remark, scope="row") if name == "th" else element(name, value + remark)
