"""Pictures of graphs: OpenFst writes Graphviz' language, Graphviz draws."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

from seqtrain.errors import ArgumentError, MissingDependencyError
from seqtrain.fsa.automaton import Fsa
from seqtrain.fsa.openfst import to_openfst
from seqtrain.fsa.wfst import Wfst

__all__ = ["PICTURES", "draw", "to_dot"]

PICTURES = ("svg", "pdf", "png")


def to_dot(graph: Wfst | Fsa, *, title: str = "") -> str:
    """The graph in Graphviz' language; weights are costs, -log, as OpenFst prints them."""
    wfst = Wfst.from_fsa(graph) if isinstance(graph, Fsa) else graph
    fst = to_openfst(wfst, semiring="log")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.dot"
        fst.draw(str(path), acceptor=wfst.is_acceptor, title=title, portrait=True)
        return path.read_text()


def draw(graph: Wfst | Fsa, *, format: str = "svg", title: str = "") -> bytes:
    """The picture of the graph, "svg", "pdf" or "png".

    Raises:
        ArgumentError: another format, or Graphviz' program `dot` isn't there, or can't draw it.
        MissingDependencyError: the package graphviz isn't installed.
    """
    if format not in PICTURES:
        raise ArgumentError(f"format must be one of {', '.join(PICTURES)}, got {format!r}", argument="format")
    dot = to_dot(graph, title=title)
    try:
        graphviz = importlib.import_module("graphviz")
    except ImportError as error:
        raise MissingDependencyError("graphviz", extra="draw") from error
    try:
        picture: bytes = graphviz.Source(dot).pipe(format=format)
    except graphviz.ExecutableNotFound as error:
        raise ArgumentError(
            "Graphviz' program `dot` isn't on the path: install Graphviz, or write .dot and draw it elsewhere",
            argument="format",
        ) from error
    except graphviz.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip() if error.stderr else "nothing"
        raise ArgumentError(
            f"Graphviz' program `dot` can't draw {format}: it ended with status {error.returncode} and said: {said}",
            argument="format",
        ) from error
    return picture
