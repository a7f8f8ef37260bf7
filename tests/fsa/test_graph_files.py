"""Graphs written to files and read back, with symbols, and drawn."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from seqtrain.errors import ArgumentError, DataError, FsaError, MissingDependencyError
from seqtrain.fsa import Fsa
from seqtrain.fsa.draw import draw, to_dot
from seqtrain.fsa.graph_files import from_openfst_table, read_graph, to_openfst_table, write_graph
from seqtrain.fsa.openfst import from_openfst, read_symbols, to_openfst, write_symbols
from seqtrain.fsa.wfst import Wfst
from tests.fsa.strategies import automata, quick

SYMBOLS = {0: "<eps>", 1: "a", 2: "b", 3: "c"}
OUTPUTS = {0: "-", 8: "y", 9: "x"}
FSA = Fsa([[0, 1, 0], [0, 2, 2], [1, 2, 1]], [-0.5, -0.25, -1.0], final={2: -0.125})


def same(first: Wfst, second: Wfst) -> bool:
    return (
        np.array_equal(first.arcs, second.arcs)
        and np.array_equal(first.weights, second.weights)
        and (first.num_states, first.start) == (second.num_states, second.start)
        and np.array_equal(first.final_states, second.final_states)
        and np.array_equal(first.final_weights, second.final_weights)
        and first.input_symbols == second.input_symbols
        and first.output_symbols == second.output_symbols
    )


def by_source(graph: Wfst) -> Wfst:
    """OpenFst keeps arcs at their states, and forgets final states that accept nothing."""
    order = np.argsort(graph.arcs[:, 0], kind="stable")
    final = graph.final_weights > -np.inf
    return Wfst(
        graph.arcs[order], graph.weights[order], graph.num_states, graph.start, graph.final_states[final],
        graph.final_weights[final], graph.input_symbols, graph.output_symbols,
    )  # fmt: skip


@pytest.mark.parametrize("semiring", ["log", "tropical"])
@quick
@given(fsa=automata())
def test_openfst_keeps_everything(semiring: str, fsa: Fsa) -> None:
    graph = Wfst.from_fsa(fsa)
    assert same(from_openfst(to_openfst(graph, semiring=semiring)), by_source(graph))


@pytest.mark.parametrize("name", ["graph.fst", "graph.txt"])
@pytest.mark.parametrize("kind", ["acceptor", "symbols", "transducer"])
def test_round_trips(tmp_path: Path, name: str, kind: str) -> None:
    graph = {
        "acceptor": Wfst.from_fsa(FSA),
        "symbols": Wfst.from_fsa(FSA, symbols=SYMBOLS),
        "transducer": Wfst.from_fsa(FSA, symbols=SYMBOLS, output_labels=[0, 9, 8], output_symbols=OUTPUTS),
    }[kind]  # fmt: skip
    write_graph(graph, tmp_path / name, semiring="log")
    read = read_graph(
        tmp_path / name,
        transducer=kind == "transducer",
        input_symbols=graph.input_symbols,
        output_symbols=graph.output_symbols,
    )
    assert same(read, graph)


def test_doubles_are_kept() -> None:
    graph = Wfst.from_fsa(Fsa([[0, 1, 0]], np.array([-1 / 3])))
    assert from_openfst(to_openfst(graph, semiring="log")).weights[0] == -1 / 3
    assert from_openfst(to_openfst(graph, semiring="tropical")).weights[0] == -float(np.float32(1 / 3))


def test_k2_text(tmp_path: Path) -> None:
    path = tmp_path / "graph.k2"
    write_graph(Wfst.from_fsa(FSA), path)
    assert path.read_text() == "0 1 0 -0.5\n0 2 2 -0.25\n1 2 1 -1.0\n2 3 -1 -0.125\n3\n"
    assert same(read_graph(path), Wfst.from_fsa(FSA))
    with pytest.raises(ArgumentError, match="would lose the output labels"):
        write_graph(Wfst.from_fsa(FSA, output_labels=[1, 2, 3]), path)


def test_text_with_names() -> None:
    graph = from_openfst_table("0 1 a 0.5\n1 2 <eps>\n2 1.5\n", input_symbols=SYMBOLS)
    assert graph.arcs.tolist() == [[0, 1, 1, 1], [1, 2, 0, 0]]
    assert graph.weights.tolist() == [-0.5, 0.0]
    assert graph.final_weights.tolist() == [-1.5]
    assert to_openfst_table(graph) == "0\t1\ta\t0.5\n1\t2\t<eps>\n2\t1.5\n"
    with pytest.raises(FsaError, match="OpenFst can't read this text"):
        from_openfst_table("0 1 z\n1\n", input_symbols=SYMBOLS)


def test_symbols(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    write_symbols(SYMBOLS, path)
    assert path.read_text() == "<eps>\t0\na\t1\nb\t2\nc\t3\n"
    assert read_symbols(path) == SYMBOLS
    path.write_text("a 1\nb one\n")
    with pytest.raises(DataError, match=r"words.txt, line 2: 'b one' isn't `symbol label`"):
        read_symbols(path)
    path.write_text("a 1\nb 1\n")
    with pytest.raises(DataError, match=r"line 2: label 1 occurs twice"):
        read_symbols(path)
    with pytest.raises(DataError, match="can't be read"):
        read_symbols(tmp_path / "missing")


def test_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "graph.fst"
    path.write_bytes(b"no graph")
    with pytest.raises(DataError, match=r"graph.fst can't be read as an OpenFst file"):
        read_graph(path)
    with pytest.raises(DataError, match=r"missing.k2 can't be read as k2-text"):
        read_graph(tmp_path / "missing.k2")
    with pytest.raises(ArgumentError, match=r"graph.xyz doesn't end in one of .fst, .txt, .k2, .pt"):
        read_graph(tmp_path / "graph.xyz")


def test_k2_is_asked_for_where_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "k2", None)
    with pytest.raises(MissingDependencyError, match=r"k2 is not installed"):
        write_graph(Wfst.from_fsa(FSA), tmp_path / "graph.pt")


def test_dot() -> None:
    dot = to_dot(Wfst.from_fsa(FSA, symbols=SYMBOLS), title="three states")
    assert dot.startswith("digraph FST {")
    assert 'label = "three states"' in dot
    assert '0 -> 1 [label = "a/0.5"' in dot


def test_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="format must be one of svg, pdf, png, got 'gif'"):
        draw(FSA, format="gif")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ArgumentError, match="program `dot` isn't on the path"):
        draw(FSA)
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(MissingDependencyError, match=r"graphviz is not installed.*seqtrain\[draw\]"):
        draw(FSA)


def test_a_picture_by_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphviz' program gets the graph and its answer comes back."""
    program = tmp_path / "dot"
    program.write_text('#!/bin/sh\necho "$*"\n/bin/cat\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments, _, rest = draw(FSA, format="svg").partition(b"\n")
    assert b"-Tsvg" in arguments
    assert rest.decode() == to_dot(FSA)


@pytest.mark.parametrize(
    ("arcs", "message"),
    [
        ([[0, 1, 1, -1]], r"arc 0 \(0 → 1\): the output label -1 is negative"),
        ([[0, 3, 1, 1]], "state 3 is outside"),
    ],
)
def test_what_is_no_transducer(arcs: list[list[int]], message: str) -> None:
    with pytest.raises(FsaError, match=message):
        Wfst(np.array(arcs), np.zeros(1), 2, 0, np.array([1]), np.zeros(1))
