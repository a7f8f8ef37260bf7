"""From what a run has measured to what its report shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from seqtrain.training.report import AlignmentView, Cell, Curve, Plot, ReportData, Table, Tile
from seqtrain.training.report.machine import machine_facts
from seqtrain.training.results import STAGE_NAMES

__all__ = ["report_data"]

_MEASURES = (
    ("per", "PER"),
    ("per_lm", "PER with LM"),
    ("wer_open", "WER open"),
    ("wer_closed", "WER closed"),
)


def report_data(
    results: Mapping[str, Any], metrics: Iterable[Mapping[str, Any]], alignments: Sequence[AlignmentView]
) -> ReportData:
    """The report of a run.

    Args:
        results: the sections of `results.json`; those that are missing leave their tables out.
        metrics: the records of `metrics.jsonl`.
        alignments: utterances to show.
    """
    corpus = results.get("corpus", {})
    records = list(metrics)
    return ReportData(
        title=str(corpus.get("title", "")),
        remark=str(corpus.get("note", "")),
        facts=_facts(results),
        tiles=_tiles(results),
        tables=(*_error_tables(results), *_boundary_tables(results)),
        plots=tuple(_plots(records, corpus)),
        alignments=tuple(alignments),
    )


def _facts(results: Mapping[str, Any]) -> dict[str, str]:
    corpus = results.get("corpus", {})
    facts = {}
    if "train" in corpus:
        train = corpus["train"]
        facts["Training set"] = f"{train['utterances']} utterances, {train['minutes']:.1f} minutes"
    for name, about in corpus.get("heldout", {}).items():
        facts[f"Held-out set {name}"] = (
            f"{about['utterances']} utterances, {about['minutes']:.1f} minutes, {about['words']} words, "
            f"{about['phones']} phones"
        )
    for stage, used in results.get("stages", {}).items():
        start = f"from {STAGE_NAMES[used['start']]}, " if "start" in used else ""
        facts[f"Training, {STAGE_NAMES[stage]}"] = (
            f"{start}{used['steps']} steps, {used['parameters'] / 1e6:.2f} M parameters, "
            f"{used['cpu_seconds']:.0f} s of CPU time, {used['wall_seconds']:.0f} s"
        )
    facts["Seed"] = str(corpus.get("seed", ""))
    facts.update(machine_facts())
    return facts


def _tiles(results: Mapping[str, Any]) -> tuple[Tile, ...]:
    tiles = []
    for name, stages in results.get("scores", {}).items():
        for stage, rates in stages.items():
            tiles.append(
                Tile(
                    f"{STAGE_NAMES[stage]}, {name}",
                    f"{rates['per']['percent']:.1f} %",
                    f"phone errors; words, open: {rates['wer_open']['percent']:.1f} %",
                )
            )
    return tuple(tiles)


def _error_tables(results: Mapping[str, Any]) -> list[Table]:
    tables = []
    for name, stages in results.get("scores", {}).items():
        rows: list[tuple[str | Cell, ...]] = []
        for stage, rates in stages.items():
            cells = []
            for measure, _ in _MEASURES:
                if measure not in rates:
                    cells.append(Cell("–"))
                    continue
                rate = rates[measure]
                low, high = rate["interval"]
                others = [other[measure]["percent"] for other in stages.values() if measure in other]
                best = rate["percent"] <= min(others)
                cells.append(Cell(f"{rate['percent']:.1f} %", f"{low:.1f} … {high:.1f}", best=best))
            rows.append((STAGE_NAMES[stage], *cells))
        tables.append(
            Table(
                f"Error rates, {name}",
                ("", *(title for _, title in _MEASURES)),
                tuple(rows),
                note="PER against each word's first pronunciation; with LM: through the phone n-gram that "
                "discriminative training competes with. WER with a bigram of the training text; open: the "
                "vocabulary has the words of the held-out sets, closed: it hasn't. Small: 95 % bootstrap interval over "
                "utterances, which knows nothing of other speakers or other seeds.",
            )
        )
    return tables


def _boundary_tables(results: Mapping[str, Any]) -> list[Table]:
    tables = []
    for name, stages in results.get("boundaries", {}).items():
        found = {stage: values for stage, values in stages.items() if stage in STAGE_NAMES}
        rows: list[tuple[str | Cell, ...]] = []
        for stage, values in found.items():
            cells = []
            for edge in ("start", "end"):
                share = values[f"{edge}s_within"]
                best = all(share >= other[f"{edge}s_within"] for other in found.values())
                offset = 1000 * values[f"{edge}_offset"]
                cells.append(Cell(f"{100 * share:.1f} %", f"median {offset:+.0f} ms", best=best))
            rows.append((STAGE_NAMES[stage], *cells))
        if not rows:
            continue
        tolerance = 1000 * next(iter(found.values()))["tolerance"]
        words = next(iter(found.values()))["words"]
        without = len(stages.get("without", []))
        tables.append(
            Table(
                f"Word boundaries within {tolerance:.0f} ms of PocketSphinx's, {name}",
                ("", "Starts", "Ends"),
                tuple(rows),
                note=f"{words} words"
                + (
                    f"; {without} utterances left out, which PocketSphinx finds no path for."
                    if without
                    else "."
                ),
            )
        )
    return tables


def _plots(records: Sequence[Mapping[str, Any]], corpus: Mapping[str, Any]) -> list[Plot]:
    plots = []
    for name in corpus.get("heldout", {}):
        curves = _curves(records, f"per_{name}")
        if curves:
            plots.append(Plot(f"Phone error rate, {name}", "step", "PER (%)", curves, y_from_zero=True))
    for name in corpus.get("heldout", {}):
        curves = _curves(records, f"per_lm_{name}")
        if curves:
            title = f"Phone error rate through the phone n-gram, {name}"
            plots.append(Plot(title, "step", "PER (%)", curves, y_from_zero=True))
    # Each criterion has a scale of its own.
    for stage, title in STAGE_NAMES.items():
        curves = _curves([r for r in records if r["stage"] == stage], "loss")
        if curves:
            plots.append(Plot(f"Training criterion, {title}", "step", "per frame, natural log", curves))
    for key, title, label in (
        ("expected_errors", "Expected share of wrong phones", "share"),
        ("gap", "Numerator less denominator", "per frame, natural log"),
        ("alignment_entropy", "Entropy of the alignment", "per frame, natural log"),
        ("silence_share", "Share of blank or silence in the alignment", "share"),
        ("silence", "Share of silence in the network's output", "share"),
        ("learning_rate", "Learning rate", ""),
    ):
        curves = _curves(records, key)
        if curves:
            note = "Where it passes one half, silence has taken over." if key == "silence" else ""
            plots.append(Plot(title, "step", label, curves, y_from_zero=key == "silence", note=note))
    return plots


def _curves(records: Sequence[Mapping[str, Any]], key: str) -> tuple[Curve, ...]:
    curves = []
    for stage, title in STAGE_NAMES.items():
        points = [(r["step"], r[key]) for r in records if r["stage"] == stage and r.get(key) is not None]
        if points:
            curves.append(
                Curve(title, tuple(float(x) for x, _ in points), tuple(float(y) for _, y in points))
            )
    return tuple(curves)
