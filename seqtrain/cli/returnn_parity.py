"""`seqtrain returnn-parity`: recorded cases of RETURNN's losses against these."""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Adds the command to the subparsers of `seqtrain`."""
    parser = subparsers.add_parser(
        "returnn-parity",
        help="compare with what RETURNN computes",
        description="Runs recorded cases of RETURNN's losses (a folder with index.json and one .npz a case), compares "
        "value, error, norm factor, objective and gradients, and exits with status 1 on any difference.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="the folder of cases")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints what differs and what was skipped, and the counts; returns 0, or 1 where anything differs.

    Raises:
        DataError: the folder doesn't hold cases.
    """
    from seqtrain.compat.returnn.parity import read_cases, run_case

    cases = read_cases(args.directory)
    logger = logging.getLogger("seqtrain")
    level = logger.level
    # That cases have sequences without a path is what some of them are about.
    logger.setLevel(logging.ERROR)
    try:
        results = [run_case(args.directory, name, case) for name, case in cases.items()]
    finally:
        logger.setLevel(level)
    counts = Counter(result.status for result in results)
    totals = {status: counts[status] for status in ("ok", "different", "skipped")}
    if args.json:
        print(json.dumps({**totals, "cases": [asdict(result) for result in results]}, indent=2))
    else:
        for result in results:
            if result.status != "ok":
                print(f"{result.status}: {result.name}: {'; '.join(result.details)}")
        print(f"{totals['ok']} ok, {totals['different']} different, {totals['skipped']} skipped")
    return 1 if totals["different"] else 0
