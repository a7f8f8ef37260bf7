from __future__ import annotations

from typing import Any

from seqtrain.training.report import Cell, format_report
from seqtrain.training.report.recipe import recipe_report


def rate(percent: float) -> dict[str, Any]:
    return {
        "percent": percent,
        "substitutions": 7,
        "insertions": 2,
        "deletions": 1,
        "reference": 100,
        "interval": [percent - 1, percent + 1],
    }


def boundaries(starts: float, ends: float) -> dict[str, float]:
    return {
        "words": 386,
        "starts_within": starts,
        "ends_within": ends,
        "start_offset": -0.01,
        "end_offset": 0.04,
        "tolerance": 0.05,
    }


RESULTS = {
    "corpus": {
        "recipe": "asterisk",
        "title": "Asterisk prompts",
        "note": "one speaker",
        "heldout": {"std": {"utterances": 53, "words": 394, "phones": 1543}},
    },
    "scores": {
        "std": {
            "ctc": {"per": rate(9.6), "wer_open": rate(8.9), "wer_closed": rate(18.8)},
            "hmm": {"per": rate(12.2), "wer_open": rate(7.4), "wer_closed": rate(19.3)},
        }
    },
    "boundaries": {
        "std": {"ctc": boundaries(0.74, 0.56), "hmm": boundaries(0.76, 0.76), "without": ["a", "b"]}
    },
}
METRICS = [
    {"stage": "ctc", "step": 20, "loss": 3.0, "gradient_norm": 1.0},
    {"stage": "ctc", "step": 40, "loss": None, "gradient_norm": 1.0},
    {"stage": "ctc", "step": 40, "per_std": 22.0, "per_novel": 30.0},
    {"stage": "hmm", "step": 20, "loss": 2.0, "gradient_norm": 1.0, "silence": 0.3},
    {"stage": "hmm", "step": 20, "per_std": 42.0, "per_novel": 50.0},
]


def test_tables_mark_the_better_stage_and_carry_the_remark() -> None:
    report = recipe_report(RESULTS, METRICS, facts={"seed": "1"})
    assert report.title == "asterisk: Asterisk prompts"
    assert report.remark == "one speaker"
    errors, words = report.tables
    assert errors.columns == ("", "PER", "WER, open", "WER, closed")
    assert errors.rows[0][:2] == ("CTC", Cell("9.6 %", "8.6 – 10.6 · 7 s 2 i 1 d", best=True))
    assert [cell.best for row in errors.rows for cell in row[1:] if isinstance(cell, Cell)] == [
        True, False, True, False, True, False,
    ]  # fmt: skip
    assert "53 utterances, 394 words, 1543 phones" in errors.note
    assert words.rows[1] == (
        "Full-sum HMM",
        "386",
        Cell("76.0 %", "median -10 ms", best=True),
        Cell("76.0 %", "median +40 ms", best=True),
    )
    assert "within 50 ms" in words.note
    assert "without the 2 that PocketSphinx finds no path for" in words.note
    assert [tile.value for tile in report.tiles] == ["9.6 % PER", "12.2 % PER"]


def test_plots_of_what_was_measured() -> None:
    report = recipe_report(RESULTS, METRICS, facts={})
    assert [(plot.title, [curve.name for curve in plot.curves]) for plot in report.plots] == [
        ("Phone error rate, novel", ["CTC", "Full-sum HMM"]),
        ("Phone error rate, std", ["CTC", "Full-sum HMM"]),
        ("Training loss, CTC", ["CTC"]),
        ("Training loss, Full-sum HMM", ["Full-sum HMM"]),
        ("Share of silence", ["Full-sum HMM"]),
        ("Gradient norm before clipping", ["CTC", "Full-sum HMM"]),
    ]
    assert report.plots[1].curves[0].x == (40.0,)
    assert "one speaker" in format_report(report)


def test_a_run_that_has_measured_nothing_has_a_report() -> None:
    report = recipe_report({}, [], facts={})
    assert not report.tables
    assert not report.plots
    assert not report.tiles
    assert "seqtrain" in format_report(report)
