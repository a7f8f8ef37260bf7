"""The command line of a recipe: that of `seqtrain train`, the configuration given."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from seqtrain.cli.train import add_arguments, run
from seqtrain.errors import SeqtrainError

__all__ = ["main"]


def main(config: Path) -> NoReturn:
    """Runs the recipe of the configuration `config` with the arguments of this process, and exits."""
    parser = argparse.ArgumentParser(
        prog=f"python -m recipes.{config.parent.name}", description=f"Runs the recipe {config.parent.name}."
    )
    add_arguments(parser)
    arguments = parser.parse_args()
    arguments.config = config
    try:
        sys.exit(run(arguments))
    except SeqtrainError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(2)
