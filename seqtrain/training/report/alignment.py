"""An utterance over time: spectrogram, words, phones and occupancies, one under the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from seqtrain.align import Segment
from seqtrain.training.report.colors import heat, spectrogram
from seqtrain.training.report.data import AlignmentTrack, AlignmentView
from seqtrain.training.report.markup import element, text
from seqtrain.training.report.png import png_data_uri

__all__ = ["draw_alignment"]

_PIXELS_PER_SECOND = 280.0
_LEAST_WIDTH = 1010.0
_GUTTER = 112.0
_SPECTROGRAM, _AXIS, _WORDS, _PHONES, _ROW, _SPACE = 120.0, 22.0, 26.0, 22.0, 10.0, 10.0
_HEAT_COLOR = (57, 135, 229)
# Width of a letter at the size that words and phones are written in; longer names than their box are left to
# the tooltip.
_WORD_LETTER, _PHONE_LETTER = 7.4, 6.8


@dataclass
class _Canvas:
    """Drawings in time, and their names to the left of them, in step."""

    scale: float
    width: float
    y: float = 0.0
    drawing: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def name(self, content: str, y: float, kind: str) -> None:
        self.names.append(element("text", text(content), x=_GUTTER - 8, y=y, class_=kind))


def draw_alignment(view: AlignmentView) -> str:
    """A `<figure>` that scrolls sideways where the utterance is long."""
    # Frames may reach past the end of the recording.
    ends = [s.end_s for track in view.tracks for s in (*track.words, *track.phones)]
    span = max(view.duration, len(view.log_mel) * view.frame_shift, *ends, 0.1)
    width = max(span * _PIXELS_PER_SECOND, _LEAST_WIDTH)
    canvas = _Canvas(scale=width / span, width=width)
    _draw_spectrogram(canvas, view)
    _draw_axis(canvas, span)
    for track in view.tracks:
        _draw_track(canvas, track)
    height = canvas.y
    names = element(
        "svg", "".join(canvas.names), width=_GUTTER, height=height, class_="names", aria_hidden="true"
    )
    drawing = element(
        "svg",
        "".join(canvas.drawing),
        width=canvas.width,
        height=height,
        role="img",
        aria_label=f"alignment of {view.text}",
    )
    caption = element(
        "figcaption",
        element("h3", text(view.text)) + element("span", text(f"{view.id} · {view.duration:.2f} s")),
    )
    body = element("div", names + element("div", drawing, class_="scroll", tabindex="0"), class_="timeline")
    return element("figure", caption + body, class_="alignment")


def _image(pixels: np.ndarray, x: float, y: float, width: float, height: float) -> str:
    return element(
        "image",
        href=png_data_uri(pixels),
        x=x,
        y=y,
        width=width,
        height=height,
        preserveAspectRatio="none",
    )


def _draw_spectrogram(canvas: _Canvas, view: AlignmentView) -> None:
    log_mel = view.log_mel.detach().double().cpu().numpy()
    if log_mel.size:
        covered = len(log_mel) * view.frame_shift * canvas.scale
        canvas.drawing.append(_image(spectrogram(log_mel), 0, canvas.y, covered, _SPECTROGRAM))
    canvas.name("log-mel", canvas.y + 14, "what")
    # The first track's word boundaries, over the spectrogram.
    first = next((track for track in view.tracks if track.words), None)
    for segment in first.words if first is not None else ():
        for time in (segment.start_s, segment.end_s):
            x = time * canvas.scale
            canvas.drawing.append(
                element("line", x1=x, y1=canvas.y, x2=x, y2=canvas.y + _SPECTROGRAM, class_="boundary")
            )
    canvas.y += _SPECTROGRAM


def _draw_axis(canvas: _Canvas, duration: float) -> None:
    step = 0.1
    count = round(duration / step + 0.5)
    for i in range(count + 1):
        x = i * step * canvas.scale
        if x > canvas.width:
            break
        major = i % 5 == 0
        canvas.drawing.append(
            element("line", x1=x, y1=canvas.y, x2=x, y2=canvas.y + (7 if major else 4), class_="axis")
        )
        if major and x < canvas.width - 12:
            place = "tick" if i == 0 else "tick middle"
            canvas.drawing.append(element("text", f"{i * step:.1f}", x=x, y=canvas.y + 19, class_=place))
    canvas.name("seconds", canvas.y + 19, "what")
    canvas.y += _AXIS


def _draw_track(canvas: _Canvas, track: AlignmentTrack) -> None:
    canvas.y += _SPACE
    canvas.name(track.name, canvas.y + 17, "track")
    if track.words:
        _draw_segments(canvas, track.words, _WORDS, "word", _WORD_LETTER)
    if track.phones:
        _draw_segments(canvas, track.phones, _PHONES, "phone", _PHONE_LETTER)
    if track.occupancies is not None:
        canvas.y += 3
        _draw_occupancies(canvas, track)


def _draw_segments(
    canvas: _Canvas, segments: Sequence[Segment], height: float, kind: str, letter: float
) -> None:
    for segment in segments:
        x, width = segment.start_s * canvas.scale, segment.duration_s * canvas.scale
        score = "" if segment.score is None else f"\nmean log score {segment.score:.2f}"
        told = f"{segment.symbol}\n{segment.start_s:.2f} – {segment.end_s:.2f} s{score}"
        box = element(
            "rect", x=x + 0.5, y=canvas.y + 1, width=max(width - 1, 1.0), height=height - 3, rx=3, class_=kind
        )
        fits = len(segment.symbol) * letter <= width + 2
        written = (
            element("text", text(segment.symbol), x=x + width / 2, y=canvas.y + height / 2 + 3.5, class_=kind)
            if fits
            else ""
        )
        canvas.drawing.append(element("g", element("title", text(told)) + box + written))
    canvas.y += height


def _draw_occupancies(canvas: _Canvas, track: AlignmentTrack) -> None:
    if track.occupancies is None:
        return
    values = track.occupancies.detach().double().cpu().numpy()
    shown = [v for v in range(values.shape[1]) if values[:, v].max(initial=0.0) >= track.threshold]
    # In the order in which they are said, which makes a path down the page.
    shown.sort(key=lambda v: int(np.argmax(values[:, v] >= track.threshold)))
    if not shown:
        return
    height = _ROW * len(shown)
    left, covered = track.frame_offset * canvas.scale, len(values) * track.frame_shift * canvas.scale
    canvas.drawing.append(element("rect", x=left, y=canvas.y, width=covered, height=height, class_="ground"))
    canvas.drawing.append(_image(heat(values[:, shown].T, _HEAT_COLOR), left, canvas.y, covered, height))
    for row, v in enumerate(shown):
        canvas.name(track.labels[v], canvas.y + (row + 1) * _ROW - 1.5, "row")
    canvas.y += height + 2
