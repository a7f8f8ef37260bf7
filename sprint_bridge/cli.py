"""The command `sprint-bridge`.

Exit status: 0 fine; 1 the service isn't reachable or isn't ready; 2 wrong usage, configuration or data.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from seqtrain.errors import ConfigError, SeqtrainError
from sprint_bridge.config import ServeConfig, parse_config, read_config

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SeqtrainError as error:
        print(f"sprint-bridge: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sprint-bridge", description="Serves automata and alignments to sequence training over gRPC."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the service until SIGTERM")
    serve.set_defaults(run=_serve)
    serve.add_argument("--config", metavar="FILE", help="configuration, .json or .yaml; - is JSON on stdin")
    serve.add_argument("--listen", metavar="ADDRESS", help="unix:/path or 127.0.0.1:port (0: any)")
    serve.add_argument("--lexicon", metavar="FILE", help="plain text `word  P1 P2 …`, or Bliss .xml[.gz]")
    serve.add_argument("--transcripts", metavar="FILE", nargs="+", help="Kaldi `text` files, or .jsonl")
    serve.add_argument("--alignments", metavar="FILE", help=".jsonl or .npz, to be served besides")
    serve.add_argument("--topology", choices=("hmm", "ctc"), help="default: hmm")
    serve.add_argument("--states-per-phone", type=int, metavar="N")
    serve.add_argument("--phone-loop", type=float, metavar="P", help="loop probability of a phone's state")
    serve.add_argument("--silence-loop", type=float, metavar="P", help="loop probability of silence")
    serve.add_argument("--silence", type=float, metavar="P", help="probability of silence between words")
    serve.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="of the log on stderr; default: text"
    )
    serve.add_argument(
        "--insecure-loopback",
        action="store_true",
        help="a TCP port of this host without TLS, for all its users",
    )
    # For BridgeProcess: ends with the process of this id.
    serve.add_argument("--parent", type=int, metavar="PID", help=argparse.SUPPRESS)

    ping = commands.add_parser("ping", help="ask a service how it is")
    ping.set_defaults(run=_ping)
    ping.add_argument("address", metavar="ADDRESS", help="unix:/path or host:port")
    ping.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS")
    ping.add_argument("--json", action="store_true", help="print one JSON object")

    export = commands.add_parser("export", help="write the automata that RASR would export")
    export.set_defaults(run=_export)
    export.add_argument(
        "--rasr-config", required=True, type=Path, metavar="CONFIG", help="RASR's own configuration"
    )
    export.add_argument("--out", required=True, type=Path, metavar="FILE.npz", help="automata, by segment")
    export.add_argument(
        "--segment", action="append", metavar="NAME", help="full name; again for more; default: all"
    )
    export.add_argument("--allophones", type=Path, metavar="FILE", help="write the allophone inventory, too")
    export.add_argument(
        "--labels", type=Path, metavar="FILE.json", help="write the names of the classes, too"
    )
    export.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of $(NAME) in the configuration",
    )
    export.add_argument(
        "--unknown-words",
        choices=("skip", "raise"),
        default="skip",
        help="skip words that aren't in the lexicon, as RASR does, with a warning (default), or stop",
    )
    export.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _serve(options: argparse.Namespace) -> NoReturn:
    # Imported here, so that --help and errors in the configuration don't wait for torch and grpc.
    from sprint_bridge.logs import JsonFormatter
    from sprint_bridge.serve import serve

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter()
        if options.log_format == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    config = _config(options)
    serve(config, announce=lambda line: print(line, flush=True), parent=options.parent)


def _config(options: argparse.Namespace) -> ServeConfig:
    flags = {
        name: value
        for name in ("lexicon", "transcripts", "alignments")
        if (value := getattr(options, name)) is not None
    }
    topology = {
        "type": options.topology,
        "states_per_phone": options.states_per_phone,
        "phone": {"loop_probability": options.phone_loop},
        "silence": {"loop_probability": options.silence_loop},
        "silence_probability": options.silence,
    }
    given = {
        name: value for name, value in topology.items() if value not in (None, {"loop_probability": None})
    }
    if options.config is None:
        return parse_config(
            {
                "listen": options.listen,
                "insecure_loopback": options.insecure_loopback,
                "backend": {**flags, "topology": given},
            },
            folder=Path.cwd(),
        )
    if flags or given:
        raise ConfigError(
            f"--config says it all; leave out: {', '.join([*flags, *given])}",
            key=next(iter([*flags, *given])),
        )
    if options.config == "-":
        try:
            values = json.load(sys.stdin)
        except json.JSONDecodeError as error:
            raise ConfigError(f"the configuration on stdin isn't JSON: {error}", key="") from error
        config = parse_config(values, folder=Path.cwd())
    else:
        config = read_config(Path(options.config))
    if options.listen is not None:
        config = dataclasses.replace(config, listen=options.listen)
    return dataclasses.replace(config, insecure_loopback=True) if options.insecure_loopback else config


def _export(options: argparse.Namespace) -> int:
    from sprint_bridge.export import export

    logging.basicConfig(level=logging.WARNING, format="sprint-bridge: %(message)s", stream=sys.stderr)
    variables = {}
    for setting in options.set:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {setting!r}: expected NAME=VALUE", key=name)
        variables[name] = value
    report = export(
        options.rasr_config,
        options.out,
        segments=options.segment,
        allophones=options.allophones,
        labels=options.labels,
        variables=variables,
        unknown_words=options.unknown_words,
    )
    if options.json:
        print(json.dumps(report))
    else:
        print(
            f"{options.out}: {report['segments']} segments, {report['states']} states, {report['edges']} edges, "
            f"{report['classes']} classes, {report['allophones']} allophones"
        )
    return 0


def _ping(options: argparse.Namespace) -> int:
    from sprint_bridge.ping import ping

    report = ping(options.address, timeout=options.timeout)
    if options.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name}: {value}")
    return 0 if report["status"] == "serving" else 1
