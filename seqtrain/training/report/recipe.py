"""The report of a recipe from what its run has left: results, metrics, and the utterances to show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from seqtrain.training.report.data import AlignmentView, Cell, Curve, Plot, ReportData, Table, Tile

__all__ = ["recipe_report"]

_STAGES = {"ctc": "CTC", "hmm": "Full-sum HMM"}
_RATES = {"per": "PER", "wer_open": "WER, open", "wer_closed": "WER, closed"}


def recipe_report(
    results: Mapping[str, Any],
    metrics: Iterable[Mapping[str, Any]],
    *,
    facts: Mapping[str, str],
    alignments: Sequence[AlignmentView] = (),
) -> ReportData:
    """Puts a run's figures into tiles, tables and plots.

    Args:
        results: the sections of `Results`.
        metrics: the records of `MetricsLog`.
        facts: what the figures depend on, see `ReportData`.
        alignments: the utterances to show.
    """
    corpus = results.get("corpus", {})
    scores: Mapping[str, Any] = results.get("scores", {})
    boundaries: Mapping[str, Any] = results.get("boundaries", {})
    about: Mapping[str, Any] = corpus.get("heldout", {})
    tables = [_rates(name, rates, about.get(name, {})) for name, rates in scores.items()]
    tables += [_boundaries(name, found) for name, found in boundaries.items()]
    return ReportData(
        title=f"{corpus.get('recipe', 'recipe')}: {corpus['title']}" if "title" in corpus else "seqtrain",
        remark=str(corpus.get("note", "")),
        facts=facts,
        tiles=tuple(_tiles(scores)),
        tables=tuple(tables),
        plots=tuple(_plots(list(metrics))),
        alignments=tuple(alignments),
    )


def _name(stage: str) -> str:
    return _STAGES.get(stage, stage)


def _tiles(scores: Mapping[str, Any]) -> Iterable[Tile]:
    for name, stages in scores.items():
        for stage, rates in stages.items():
            per, wer = rates["per"]["percent"], rates["wer_open"]["percent"]
            yield Tile(f"{_name(stage)}, {name}", f"{per:.1f} % PER", f"{wer:.1f} % WER, open vocabulary")


def _rates(name: str, stages: Mapping[str, Any], about: Mapping[str, Any]) -> Table:
    best = {kind: min(rates[kind]["percent"] for rates in stages.values()) for kind in _RATES}
    rows: list[tuple[str | Cell, ...]] = []
    for stage, rates in stages.items():
        cells = [
            Cell(
                f"{rate['percent']:.1f} %",
                f"{rate['interval'][0]:.1f} – {rate['interval'][1]:.1f}"
                f" · {rate['substitutions']} s {rate['insertions']} i {rate['deletions']} d",
                best=len(stages) > 1 and rate["percent"] == best[kind],
            )
            for kind, rate in ((kind, rates[kind]) for kind in _RATES)
        ]
        rows.append((_name(stage), *cells))
    size = (
        f"{about['utterances']} utterances, {about['words']} words, {about['phones']} phones; "
        if about
        else ""
    )
    return Table(
        f"Held-out set {name}",
        ("", *_RATES.values()),
        tuple(rows),
        f"{size}below: 95 % bootstrap interval over utterances, substitutions, insertions, deletions",
    )


def _boundaries(name: str, found: Mapping[str, Any]) -> Table:
    stages = {stage: values for stage, values in found.items() if isinstance(values, Mapping)}
    tolerance = next((values["tolerance"] for values in stages.values()), 0.05)
    rows: list[tuple[str | Cell, ...]] = []
    for stage, values in stages.items():
        cells = [
            Cell(
                f"{100 * values[f'{edge}s_within']:.1f} %",
                f"median {1000 * values[f'{edge}_offset']:+.0f} ms",
                best=len(stages) > 1
                and values[f"{edge}s_within"] == max(other[f"{edge}s_within"] for other in stages.values()),
            )
            for edge in ("start", "end")
        ]
        rows.append((_name(stage), str(values["words"]), *cells))
    without = found.get("without", ())
    note = f"; without the {len(without)} that PocketSphinx finds no path for" if without else ""
    return Table(
        f"Word boundaries, {name}",
        ("", "words", "starts", "ends"),
        tuple(rows),
        f"share within {1000 * tolerance:.0f} ms of PocketSphinx's forced alignment{note}",
    )


def _plots(records: Sequence[Mapping[str, Any]]) -> Iterable[Plot]:
    stages = list(dict.fromkeys(str(record["stage"]) for record in records))
    evaluated = sorted({key for record in records for key in record if key.startswith("per_")})
    for key in evaluated:
        curves = _curves(records, stages, key)
        title = f"Phone error rate, {key.removeprefix('per_')}"
        yield Plot(title, "step", "PER (%)", curves, y_from_zero=True)
    for stage in stages:
        (curve,) = _curves(records, [stage], "loss") or (None,)
        if curve is not None:
            yield Plot(f"Training loss, {_name(stage)}", "step", "loss per frame", (curve,))
    for key, title, label in (
        ("silence", "Share of silence", "share of frames"),
        ("gradient_norm", "Gradient norm before clipping", "norm"),
    ):
        curves = _curves(records, stages, key)
        if curves:
            yield Plot(title, "step", label, curves, y_from_zero=True)


def _curves(records: Sequence[Mapping[str, Any]], stages: Sequence[str], key: str) -> tuple[Curve, ...]:
    curves = []
    for stage in stages:
        points = [(r["step"], r[key]) for r in records if r["stage"] == stage and key in r]
        if points:
            x, y = zip(*points, strict=True)
            curves.append(
                Curve(
                    _name(stage), tuple(map(float, x)), tuple(math.nan if v is None else float(v) for v in y)
                )
            )
    return tuple(curves)
