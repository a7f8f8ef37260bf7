"""Metrics of a run as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqtrain.errors import DataError
from seqtrain.files import replace_file

__all__ = ["MetricsLog"]


class MetricsLog:
    """Appends one JSON object per line to a file: always with `stage` and `step`, then whatever was
    measured."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def append(self, *, stage: str, step: int, **values: float | str | None) -> None:
        """Writes one line, at once, so that a killed run leaves what it had measured."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "step": step, **values}) + "\n")

    def rewind(self, *, stage: str, step: int) -> None:
        """Drops what `stage` logged after `step`: a resumed run measures that again.

        A half-written last line, which a killed run may leave, goes too.
        """
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
        kept = []
        for line in lines:
            record = self._parse(line)
            if record["stage"] != stage or record["step"] <= step:
                kept.append(line)
        replace_file(self.path, "".join(kept).encode())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The records, in order of writing."""
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            yield self._parse(line)

    def _parse(self, line: str) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"metrics file {self.path}: a line isn't JSON: {error}", path=str(self.path)
            ) from error
        if not isinstance(record, dict) or "stage" not in record or "step" not in record:
            raise DataError(
                f"metrics file {self.path}: a line has no stage or step: {line!r}", path=str(self.path)
            )
        return record
