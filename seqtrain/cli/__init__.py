"""The command `seqtrain`.

Exit status: 0 fine; 1 the command found what it looks for to be wrong (`doctor`, `returnn-parity`,
`fsa equal`); 2 wrong usage, configuration or data.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from seqtrain.cli import align, bench, doctor, fsa, returnn_parity, score, train
from seqtrain.errors import SeqtrainError

__all__ = ["main"]

_COMMANDS = {
    "doctor": doctor,
    "train": train,
    "align": align,
    "score": score,
    "fsa": fsa,
    "bench": bench,
    "returnn-parity": returnn_parity,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="seqtrain", description="Sequence training for speech recognition.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS.values():
        command.add_parser(subparsers)
    options = parser.parse_args(arguments)
    try:
        return int(_COMMANDS[options.command].run(options))
    except SeqtrainError as error:
        print(f"seqtrain: {error}", file=sys.stderr)
        return 2
