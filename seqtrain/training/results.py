"""What a run has measured: one JSON file, and the table that is printed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seqtrain.decoding import ErrorRate
from seqtrain.errors import DataError
from seqtrain.files import replace_file

__all__ = ["STAGE_NAMES", "Results", "describe_rate", "format_table"]

STAGE_NAMES = {"ctc": "CTC", "hmm": "full-sum HMM", "lfmmi": "LF-MMI", "mbr": "MBR"}


class Results:
    """Sections of plain values in a JSON file; each stage of a run replaces its own."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self) -> dict[str, Any]:
        """All sections; empty where nothing has been measured yet.

        Raises:
            DataError: the file is broken.
        """
        if not self.path.exists():
            return {}
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(
                f"results {self.path} are broken ({error}); delete the file", path=str(self.path)
            ) from error
        if not isinstance(content, dict):
            raise DataError(f"results {self.path} aren't a JSON object; delete the file", path=str(self.path))
        return content

    def update(self, section: str, values: dict[str, Any]) -> None:
        """Replaces the values of a section that are named, and keeps its others."""
        content = self.read()
        content[section] = {**content.get(section, {}), **values}
        replace_file(self.path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())

    def clear(self) -> None:
        """Forgets everything: a new run begins."""
        self.path.unlink(missing_ok=True)


def describe_rate(rate: ErrorRate) -> dict[str, Any]:
    """An error rate as plain values: percent, counts, and a 95 % bootstrap interval over the utterances, in
    percent."""
    low, high = rate.confidence_interval()
    return {"percent": rate.percent, **asdict(rate.total), "interval": [100 * low, 100 * high]}


def format_table(results: dict[str, Any]) -> str:
    """The error rates and word boundaries as a table of text, with what must be said beside them."""
    scores, boundaries = results.get("scores", {}), results.get("boundaries", {})
    corpus = results.get("corpus", {})
    note = corpus.get("note", "")
    lines = []
    for name, stages in scores.items():
        about = corpus.get("heldout", {}).get(name, {})
        size = (
            f"{about['utterances']} utterances, {about['words']} words, {about['phones']} phones"
            if about
            else ""
        )
        lines.append(f"{name}: {size} ({note})")
        lines.append(
            f"  {'':14}{'PER':>8}  {'with LM':>8}  {'WER open':>8}  {'WER closed':>10}"
            + ("    word ends as PocketSphinx's" if boundaries.get(name) else "")
        )
        for stage, rates in stages.items():
            row = f"  {STAGE_NAMES.get(stage, stage):14}"
            with_model = f"{rates['per_lm']['percent']:.1f}%" if "per_lm" in rates else "-"
            row += (
                f"{rates['per']['percent']:>7.1f}%  {with_model:>8}  {rates['wer_open']['percent']:>7.1f}%  "
            )
            row += f"{rates['wer_closed']['percent']:>9.1f}%"
            found = boundaries.get(name, {}).get(stage)
            if found:
                row += f"    {100 * found['ends_within']:.1f}% of {found['words']} within "
                row += f"{1000 * found['tolerance']:.0f} ms"
            lines.append(row)
    return "\n".join(lines)
