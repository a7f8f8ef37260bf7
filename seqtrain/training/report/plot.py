"""Line plots as inline SVG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seqtrain.training.report.data import Curve, Plot
from seqtrain.training.report.markup import element, number, text

__all__ = ["SERIES_COLORS", "draw_plot", "series_of", "ticks"]

_WIDTH, _HEIGHT = 520.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 16.0, 12.0, 40.0
_MOST_POINTS = 400

SERIES_COLORS = 6
"""How many colours the page's style sheet has for curves; the seventh name gets the first colour again."""


def series_of(plots: Sequence[Plot]) -> dict[str, int]:
    """The number of the colour of each name, 1 … `SERIES_COLORS`, in the order in which the names appear."""
    names = dict.fromkeys(curve.name for plot in plots for curve in plot.curves)
    return {name: i % SERIES_COLORS + 1 for i, name in enumerate(names)}


def ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) that span low … high, about `count` of them."""
    if not high > low:
        low, high = low - 0.5 * max(abs(low), 1.0), high + 0.5 * max(abs(high), 1.0)
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if power * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


@dataclass(frozen=True)
class _Axes:
    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        right, top = (x - self.x[0]) / (self.x[1] - self.x[0]), (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            _LEFT + right * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - top * (_HEIGHT - _TOP - _BOTTOM),
        )


def draw_plot(plot: Plot, series: Mapping[str, int]) -> str:
    """A `<figure>`: title, legend, curves. `series` as from `series_of`."""
    curves = [_thinned(curve) for curve in plot.curves]
    xs = [x for curve in curves for x in curve.x]
    ys = [y for curve in curves for y in curve.y if math.isfinite(y)]
    if not xs or not ys:
        drawing = element("p", "nothing measured yet", class_="empty")
    else:
        x_ticks = ticks(min(0.0, *xs), max(xs))
        y_ticks = ticks(0.0 if plot.y_from_zero else min(ys), max(ys))
        axes = _Axes((x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
        drawing = element(
            "svg",
            _grid(axes, x_ticks, y_ticks, plot)
            + "".join(_line(curve, axes, series[curve.name], plot) for curve in curves),
            viewBox=f"0 0 {number(_WIDTH)} {number(_HEIGHT)}",
            role="img",
            aria_label=f"{plot.title}: {plot.y_label} over {plot.x_label}",
        )
    legend = "".join(
        element("span", element("i", class_=f"swatch s{series[c.name]}") + text(c.name)) for c in plot.curves
    )
    caption = element("figcaption", element("h3", text(plot.title)) + element("div", legend, class_="legend"))
    note = element("p", text(plot.note), class_="note") if plot.note else ""
    return element("figure", caption + drawing + note, class_="plot")


def _thinned(curve: Curve) -> Curve:
    """The curve with at most `_MOST_POINTS` points: means of neighbours, so that spikes don't vanish by chance."""
    count = len(curve.y)
    if count <= _MOST_POINTS:
        return curve
    edges = [round(i * count / _MOST_POINTS) for i in range(_MOST_POINTS + 1)]
    groups = [slice(a, b) for a, b in itertools.pairwise(edges)]
    return Curve(
        curve.name,
        tuple(math.fsum(curve.x[g]) / len(curve.x[g]) for g in groups),
        tuple(
            math.fsum(curve.y[g]) / len(curve.y[g]) if all(map(math.isfinite, curve.y[g])) else math.nan
            for g in groups
        ),
    )


def _grid(axes: _Axes, x_ticks: Sequence[float], y_ticks: Sequence[float], plot: Plot) -> str:
    parts = []
    left, right = _LEFT, _WIDTH - _RIGHT
    for value in y_ticks:
        _, y = axes.place(axes.x[0], value)
        parts.append(element("line", x1=left, y1=y, x2=right, y2=y, class_="grid"))
        parts.append(element("text", f"{value:.6g}", x=left - 8, y=y + 4, class_="tick end"))
    for value in x_ticks:
        x, y = axes.place(value, axes.y[0])
        parts.append(element("line", x1=x, y1=y, x2=x, y2=y + 4, class_="axis"))
        parts.append(element("text", f"{value:.6g}", x=x, y=y + 17, class_="tick middle"))
    _, bottom = axes.place(axes.x[0], axes.y[0])
    parts.append(element("line", x1=left, y1=bottom, x2=right, y2=bottom, class_="axis"))
    parts.append(
        element("text", text(plot.x_label), x=(left + right) / 2, y=_HEIGHT - 6, class_="label middle")
    )
    center = (_TOP + _HEIGHT - _BOTTOM) / 2
    turned = f"rotate(-90 12 {number(center)})"
    parts.append(element("text", text(plot.y_label), x=12, y=center, transform=turned, class_="label middle"))
    return "".join(parts)


def _line(curve: Curve, axes: _Axes, color: int, plot: Plot) -> str:
    pieces: list[list[tuple[float, float, float, float]]] = [[]]
    for x, y in zip(curve.x, curve.y, strict=True):
        if math.isfinite(y):
            pieces[-1].append((*axes.place(x, y), x, y))
        elif pieces[-1]:
            pieces.append([])
    drawn = [piece for piece in pieces if piece]
    parts = [
        element(
            "polyline",
            points=" ".join(f"{number(p[0])},{number(p[1])}" for p in piece),
            class_=f"line s{color}",
        )
        for piece in drawn
    ]
    # Hardly visible dots that tell their values when pointed at; the last one shows where the curve ends.
    points = [point for piece in drawn for point in piece]
    for i, (px, py, x, y) in enumerate(points):
        told = element("title", text(f"{curve.name}\n{plot.x_label} {x:.6g}: {y:.4g}"))
        last = " last" if i == len(points) - 1 else ""
        parts.append(element("circle", told, cx=px, cy=py, r=4, class_=f"dot s{color}{last}"))
    return "".join(parts)
