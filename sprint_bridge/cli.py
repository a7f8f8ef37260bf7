"""The command `sprint-bridge`.

Exit status: 0 fine; 1 the service isn't reachable or isn't ready; 2 wrong usage, configuration or data.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from seqtrain.errors import AlignerUnavailableError, ConfigError, SeqtrainError
from sprint_bridge.config import ServeConfig, parse_config, read_config

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SeqtrainError as error:
        print(f"sprint-bridge: {error}", file=sys.stderr)
        return 1 if isinstance(error, AlignerUnavailableError) else 2


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

    record = commands.add_parser(
        "record",
        help="write down what a service answers",
        description="With segments, asks for these and ends. Without, stands between clients and the service, and "
        "writes down what they ask, until SIGTERM.",
    )
    record.set_defaults(run=_record)
    record.add_argument(
        "--target", required=True, metavar="ADDRESS", help="the service: unix:/path or host:port"
    )
    record.add_argument(
        "--out", required=True, type=Path, metavar="FILE.rec", help="the recording; a new file"
    )
    record.add_argument(
        "--listen", metavar="ADDRESS", help="where clients ask; default: a new private unix socket"
    )
    record.add_argument(
        "--insecure-loopback",
        action="store_true",
        help="a TCP port of this host without TLS, for all its users",
    )
    record.add_argument("--segments", type=Path, metavar="FILE", help="ask for these, one a line")
    record.add_argument("segment", nargs="*", metavar="SEGMENT", help="ask for these")
    record.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="of a call; default: 30"
    )
    for name in ("ca", "certificate", "key"):
        record.add_argument(f"--{name}", type=Path, metavar="FILE.pem", help="TLS to the service")
    record.add_argument("--token-file", type=Path, metavar="FILE", help="holds the token for the service")
    record.add_argument("--json", action="store_true", help="print one JSON object at the end")

    replay = commands.add_parser(
        "replay", help="serve a recording as the service that it is of, until SIGTERM"
    )
    replay.set_defaults(run=_replay)
    replay.add_argument("recording", type=Path, metavar="FILE.rec")
    replay.add_argument("--listen", metavar="ADDRESS", help="unix:/path or 127.0.0.1:port (0: any)")
    replay.add_argument(
        "--insecure-loopback",
        action="store_true",
        help="a TCP port of this host without TLS, for all its users",
    )
    replay.add_argument(
        "--recover", action="store_true", help="take what is whole of a file whose recorder was killed"
    )
    replay.add_argument("--parent", type=int, metavar="PID", help=argparse.SUPPRESS)

    top = commands.add_parser("top", help="show how a running service is doing, until Ctrl-C")
    top.set_defaults(run=_top)
    top.add_argument("address", metavar="HOST:PORT", help="`metrics` of the service's configuration")
    top.add_argument("--interval", type=float, default=2.0, metavar="SECONDS", help="default: 2")
    top.add_argument("--once", action="store_true", help="show it once, since the service's start, and end")
    top.add_argument("--json", action="store_true", help="print JSON objects, one a line")
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


def _record(options: argparse.Namespace) -> int:
    from seqtrain.aligner.v1.credentials import Credentials
    from sprint_bridge.record import RecordingServer, record_segments

    logging.basicConfig(level=logging.WARNING, format="sprint-bridge: %(message)s", stream=sys.stderr)
    token = None if options.token_file is None else _text(options.token_file, "--token-file").strip()
    credentials = Credentials(options.ca, options.certificate, options.key, token)
    segments = list(options.segment)
    if options.segments is not None:
        segments += [line for line in _text(options.segments, "--segments").splitlines() if line]
    if segments:
        counts = record_segments(
            options.target, options.out, segments, credentials=credentials, timeout=options.timeout
        )
        report: dict[str, object] = {"recording": str(options.out), "items": counts}
    else:
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: stopping.set())
        with RecordingServer(
            options.target,
            options.out,
            listen=options.listen,
            insecure_loopback=options.insecure_loopback,
            credentials=credentials,
            timeout=options.timeout,
        ) as server:
            print(f"listening {server.target}\nrecording {options.target}", flush=True)
            stopping.wait()
        report = {"recording": str(options.out), "records": server.records}
    if options.json:
        print(json.dumps(report))
    else:
        detail = (
            ", ".join(f"{count} {status}" for status, count in counts.items())
            if segments
            else f"{server.records} records"
        )
        print(f"{options.out}: {detail}")
    return 0


def _text(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option}: {path} can't be read: {error}", key=option) from error


def _replay(options: argparse.Namespace) -> NoReturn:
    from sprint_bridge.backends.replay import ReplayBackendConfig
    from sprint_bridge.serve import serve

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    config = ServeConfig(
        backend=ReplayBackendConfig(options.recording, options.recover),
        listen=options.listen,
        insecure_loopback=options.insecure_loopback,
    )
    serve(config, announce=lambda line: print(line, flush=True), parent=options.parent)


def _top(options: argparse.Namespace) -> int:
    from sprint_bridge.top import read_sample, report, show_report

    if not options.interval > 0:
        raise ConfigError(f"--interval must be above 0, found {options.interval}", key="--interval")
    before = None
    try:
        while True:
            now = read_sample(options.address)
            found = report(now, before)
            if options.json:
                print(json.dumps(found), flush=True)
            else:
                # Live, each page takes the place of the one before.
                page = "" if options.once or not sys.stdout.isatty() else "\x1b[2J\x1b[H"
                print(f"{page}{show_report(found)}", flush=True)
            if options.once:
                return 0
            before = now
            time.sleep(options.interval)
    except KeyboardInterrupt:
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
