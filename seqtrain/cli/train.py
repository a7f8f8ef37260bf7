"""`seqtrain train`: runs a recipe."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["add_arguments", "add_parser", "run"]

_STAGES = ("prepare", "ctc", "hmm", "lfmmi", "mbr", "align", "score", "report")


def add_parser(subparsers: Any) -> None:
    """Adds the command to the subparsers of `seqtrain`."""
    parser = subparsers.add_parser(
        "train",
        help="run a recipe: prepare, train, align, score, report",
        description="Runs a recipe from its configuration. Downloads, features and checkpoints are kept in the "
        "working folder.",
    )
    parser.add_argument("config", type=Path, help="the recipe's configuration, recipes/<name>/config.toml")
    add_arguments(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that the command shares with `python -m recipes.<name>`."""
    parser.add_argument("--workdir", type=Path, help="working folder (default: work/<name of the recipe>)")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the checkpoints in the working folder"
    )
    parser.add_argument(
        "--stages",
        default=",".join(_STAGES),
        metavar="STAGE,…",
        help="stages to run (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another value for a key of the configuration, as in --set hmm.prior_scale=0.6",
    )
    parser.add_argument(
        "--check-targets",
        action="store_true",
        help="exit with status 1 where a target of the configuration is missed",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the results as JSON; progress goes to stderr"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the recipe that the arguments name; returns the exit status: 1 where targets are missed, else 0."""
    # Imported here, so that `seqtrain --help` doesn't need the extra `recipes`.
    from seqtrain.training.config import read_config
    from seqtrain.training.entry import load_prepare
    from seqtrain.training.progress import Console
    from seqtrain.training.run import RecipeRun

    config = read_config(args.config, args.set)
    recipe = RecipeRun(
        config,
        args.workdir if args.workdir is not None else Path("work") / config.name,
        prepare=load_prepare(config.corpus, config=args.config),
        console=Console(sys.stderr if args.json else sys.stdout),
        resume=args.resume,
    )
    results = recipe.run([stage.strip() for stage in args.stages.split(",") if stage.strip()])
    if args.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    missed = [target for target in recipe.targets() if not target.met] if args.check_targets else []
    for target in missed:
        print(target, file=sys.stderr)
    return 1 if missed else 0
