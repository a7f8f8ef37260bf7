"""Tables of benchmark rows, as text or JSON, with the machine named."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import seqtrain
from seqtrain.ops.kernels import LEVEL

__all__ = ["machine", "parser", "show"]


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {
        "processor": model,
        "kernels": LEVEL,
        "seqtrain": seqtrain.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def parser(description: str) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument(
        "--turns", type=int, default=5, help="counted turns of each contender (default: %(default)s)"
    )
    result.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts (default: 1 2)")
    result.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return result


def show(title: str, rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Prints the rows; all have the same keys."""
    if as_json:
        print(json.dumps({"benchmark": title, "machine": machine(), "rows": list(rows)}, indent=2))
        return
    print(title)
    print("  " + ", ".join(f"{key} {value}" for key, value in machine().items()))
    cells = [[_cell(value) for value in row.values()] for row in rows]
    header = list(rows[0])
    widths = [max(len(line[i]) for line in [header, *cells]) for i in range(len(header))]
    for line in [header, ["-" * width for width in widths], *cells]:
        print("  " + "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in
                               enumerate(zip(line, widths, strict=True))))  # fmt: skip


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 0.01 else f"{value:.4g}"
    return str(value)
