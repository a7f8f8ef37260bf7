"""`seqtrain fsa`: graphs in files looked at, drawn, converted, composed, determinized, minimized and compared."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqtrain.errors import ArgumentError, DataError, FsaError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seqtrain.fsa.wfst import Wfst

__all__ = ["add_parser", "run"]

# The choices stand here, too, so that the parser needs neither torch nor OpenFst.
_FORMATS = ("openfst", "openfst-text", "k2-text", "k2")
_SEMIRINGS = ("log", "tropical")


def add_parser(subparsers: Any) -> None:
    """Adds the command to the subparsers of `seqtrain`."""
    parser = subparsers.add_parser(
        "fsa",
        help="graphs in OpenFst's and k2's files: look, draw, convert, compose, determinize, minimize, compare",
        description="Formats by the file's name: .fst OpenFst's, .txt its text, .k2 k2's text, .pt k2's own. Labels "
        "are those of OpenFst, 0 for epsilon: the columns of the scores, which k2's labels are, plus one.",
    )
    commands = parser.add_subparsers(dest="operation", required=True, metavar="OPERATION")
    for name, text, inputs, output in (
        ("info", "states, arcs, labels, and what holds of the graph", ("graph",), None),
        ("draw", "a picture: .svg, .pdf, .png, or .dot", ("graph",), "picture"),
        ("convert", "into another format", ("graph",), "result"),
        ("compose", "outputs of the first with inputs of the second", ("first", "second"), "result"),
        ("determinize", "one arc a label at each state; epsilons are removed before", ("graph",), "result"),
        ("minimize", "fewest states of a deterministic graph", ("graph",), "result"),
        ("equal", "whether two accept the same with the same weights; status 1 where not", ("first", "second"), None),
    ):  # fmt: skip
        command = commands.add_parser(name, help=text, description=text)
        for argument in inputs:
            command.add_argument(argument, type=Path)
        if output is not None:
            command.add_argument("out", type=Path, metavar=output.upper())
        command.add_argument("--from", dest="origin", choices=_FORMATS, help="the format of what is read")
        command.add_argument("--transducer", action="store_true", help="text with output labels")
        command.add_argument("--symbols", type=Path, metavar="FILE", help="names of input labels, for text")
        command.add_argument(
            "--output-symbols", type=Path, metavar="FILE", help="names of output labels, for text"
        )
        if output == "result":
            command.add_argument(
                "--to", dest="target", choices=_FORMATS, help="the format of what is written"
            )
        if name in ("determinize", "minimize", "equal"):
            command.add_argument(
                "--semiring",
                choices=_SEMIRINGS,
                required=True,
                help="whether weights of paths that meet add up (log) or the best counts (tropical)",
            )
        elif output == "result":
            command.add_argument(
                "--semiring",
                choices=_SEMIRINGS,
                default="tropical",
                help="arcs of an OpenFst file: tropical (standard, what Kaldi reads; default) or log (log64)",
            )
        if name == "equal":
            command.add_argument("--tolerance", type=float, default=1e-6, help="of weights; default: 1e-6")
        command.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Does what the arguments ask for; returns 0, or 1 where `equal` finds a difference.

    Raises:
        DataError: a file can't be read or written. FsaError: OpenFst can't do this to the graph.
        ArgumentError: a file's format isn't known. MissingDependencyError: OpenFst, k2 or graphviz isn't installed.
    """
    from seqtrain.fsa import operations
    from seqtrain.fsa.graph_files import write_graph

    paths = [args.graph] if hasattr(args, "graph") else [args.first, args.second]
    graphs = [_read(args, path) for path in paths]
    if args.operation == "equal":
        same = operations.equivalent(*graphs, semiring=args.semiring, tolerance=args.tolerance)
        _print(args, {"equal": same}, "equal" if same else "different")
        return 0 if same else 1
    if args.operation == "draw":
        _draw(graphs[0], args.out)
        _print(args, {"file": str(args.out)}, str(args.out))
        return 0
    result = graphs[0]
    if args.operation == "compose":
        result = operations.compose(*graphs)
    elif args.operation == "determinize":
        plain = operations.remove_epsilon(result, semiring=args.semiring)
        result = operations.determinize(plain, semiring=args.semiring)
    elif args.operation == "minimize":
        result = operations.minimize(result, semiring=args.semiring)
    facts = _facts(result)
    if args.operation != "info":
        write_graph(result, args.out, format=args.target, semiring=args.semiring)
        facts = {"file": str(args.out), **facts}
    _print(
        args, facts, "\n".join(f"{name.replace('_', ' '):<16}{_shown(fact)}" for name, fact in facts.items())
    )
    return 0


def _print(args: argparse.Namespace, facts: Mapping[str, Any], text: str) -> None:
    print(json.dumps(facts, indent=2) if args.json else text)


def _shown(fact: Any) -> str:
    return (
        {True: "yes", False: "no", None: "none"}[fact]
        if fact is None or isinstance(fact, bool)
        else str(fact)
    )


def _read(args: argparse.Namespace, path: Path) -> Wfst:
    from seqtrain.fsa.graph_files import read_graph
    from seqtrain.fsa.openfst import read_symbols

    symbols, outputs = (
        None if file is None else read_symbols(file) for file in (args.symbols, args.output_symbols)
    )
    return read_graph(
        path, format=args.origin, transducer=args.transducer, input_symbols=symbols, output_symbols=outputs
    )


def _draw(graph: Wfst, path: Path) -> None:
    from seqtrain.fsa.draw import PICTURES, draw, to_dot

    kind = path.suffix.removeprefix(".")
    if kind not in (*PICTURES, "dot"):
        raise ArgumentError(
            f"{path} must end in .dot, {', '.join('.' + picture for picture in PICTURES)}", argument="out"
        )
    picture = to_dot(graph).encode() if kind == "dot" else draw(graph, format=kind)
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise DataError(f"{path} can't be written: {error}", path=str(path)) from error


def _facts(graph: Wfst) -> dict[str, Any]:
    """What `info` says of a graph. `fewest_frames`: of what it accepts, None where epsilons make frames uncertain."""
    from seqtrain.fsa.operations import has_property

    try:
        fewest: int | None = graph.to_fsa().min_length()
    except FsaError:
        fewest = None
    return {
        "states": graph.num_states,
        "arcs": graph.num_arcs,
        "final_states": len(graph.final_states),
        "start": graph.start,
        "labels": len({label for label in graph.arcs[:, 2].tolist() if label}),
        "acceptor": graph.is_acceptor,
        "epsilons": int((graph.arcs[:, 2] == 0).sum()),
        "deterministic": has_property(graph, "I_DETERMINISTIC"),
        "acyclic": has_property(graph, "ACYCLIC"),
        "connected": has_property(graph, "ACCESSIBLE") and has_property(graph, "COACCESSIBLE"),
        "fewest_frames": fewest,
    }
