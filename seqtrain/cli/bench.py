"""`seqtrain bench`: runs the benchmarks of a checkout."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

from seqtrain.errors import ConfigError

__all__ = ["add_parser", "run"]

_BENCHMARKS = ("ctc", "full_sum", "lattice", "risk", "bridge")


def add_parser(subparsers: Any) -> None:
    """Adds the command to the subparsers of `seqtrain`."""
    parser = subparsers.add_parser(
        "bench",
        help="run the benchmarks (in a checkout of seqtrain)",
        description="Runs the benchmarks named, or all: each prints its table, its peers measured in the same run.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(_BENCHMARKS)}")
    parser.add_argument("--turns", type=int, help="counted turns of each contender")
    parser.add_argument("--threads", type=int, nargs="+", help="thread counts")
    parser.add_argument("--json", action="store_true", help="print JSON objects instead of tables")


def run(args: argparse.Namespace) -> int:
    """Runs the benchmarks, each in a process of its own; returns the first exit status that isn't 0.

    Raises:
        ConfigError: an unknown name, or the current folder isn't a checkout.
    """
    unknown = [name for name in args.names if name not in _BENCHMARKS]
    if unknown:
        raise ConfigError(
            f"unknown benchmark {unknown[0]!r}; there are: {', '.join(_BENCHMARKS)}", key="names"
        )
    if importlib.util.find_spec("benchmarks") is None and not Path("benchmarks").is_dir():
        raise ConfigError("no folder benchmarks here: run this in a checkout of seqtrain", key="names")
    options = [f"--turns={args.turns}"] if args.turns else []
    options += ["--threads", *map(str, args.threads)] if args.threads else []
    options += ["--json"] if args.json else []
    for name in args.names or _BENCHMARKS:
        status = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *options], check=False
        ).returncode
        if status:
            return status
    return 0
