"""Pictures: drawn by a `dot` that a package brings; what is said where there's none, or where it fails."""

from __future__ import annotations

import dataclasses
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from seqtrain.cli import main
from seqtrain.errors import ArgumentError, MissingDependencyError
from seqtrain.fsa import Fsa
from seqtrain.fsa.draw import draw, to_dot
from seqtrain.fsa.graph_files import write_graph
from seqtrain.fsa.wfst import Wfst

GRAPH = Fsa([[0, 1, 4], [1, 1, 7], [1, 2, 6]], [-0.5, -1.25, 0.0], final={2: -2.0})
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package graphviz-pure has it under another name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "dot").symlink_to(Path(sys.executable).with_name("graphviz-pure"))
    monkeypatch.setenv("PATH", str(folder))


def texts(picture: bytes) -> list[str]:
    """What is written in an SVG."""
    return [str(element.text) for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_the_text_that_graphviz_reads() -> None:
    text = to_dot(GRAPH, title="a title")
    assert text.startswith("digraph FST {")
    for line in (
        'label = "a title"',
        '0 -> 1 [label = "5/0.5"',
        '1 -> 1 [label = "8/1.25"',
        '1 -> 2 [label = "7"',
    ):
        assert line in text
    assert '2 [label = "2/2", shape = doublecircle' in text


@pytest.mark.usefixtures("dot")
def test_states_arcs_labels_and_weights_are_in_the_picture() -> None:
    assert sorted(texts(draw(GRAPH))) == ["0", "1", "2/2", "5/0.5", "7", "8/1.25"]


@pytest.mark.usefixtures("dot")
def test_symbols_are_in_the_picture() -> None:
    names = {0: "<eps>", 5: "fünf", 7: "<seven>", 8: "acht"}
    graph = dataclasses.replace(Wfst.from_fsa(GRAPH), input_symbols=names, output_symbols=names)
    assert {"fünf/0.5", "<seven>", "acht/1.25"} <= set(texts(draw(graph)))


@pytest.mark.usefixtures("dot")
def test_a_png() -> None:
    assert draw(GRAPH, format="png").startswith(b"\x89PNG")


@pytest.mark.usefixtures("dot")
def test_the_command(tmp_path: Path) -> None:
    source, picture = tmp_path / "graph.fst", tmp_path / "graph.svg"
    write_graph(Wfst.from_fsa(GRAPH), source)
    assert main(["fsa", "draw", str(source), str(picture)]) == 0
    assert "5/0.5" in texts(picture.read_bytes())


@pytest.mark.usefixtures("dot")
def test_a_format_that_this_dot_lacks() -> None:
    with pytest.raises(
        ArgumentError, match=r"can't draw pdf: it ended with status 1 and said: Format: \"pdf\""
    ):
        draw(GRAPH, format="pdf")


def test_an_unknown_format() -> None:
    with pytest.raises(ArgumentError, match="format must be one of svg, pdf, png, got 'gif'"):
        draw(GRAPH, format="gif")


def test_no_dot_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ArgumentError, match=r"`dot` isn't on the path: install Graphviz, or write \.dot"
    ) as caught:
        draw(GRAPH)
    assert caught.value.argument == "format"
    source, picture = tmp_path / "graph.fst", tmp_path / "graph.svg"
    write_graph(Wfst.from_fsa(GRAPH), source)
    assert main(["fsa", "draw", str(source), str(picture)]) == 2
    assert "install Graphviz, or write .dot" in capsys.readouterr().err
    assert not picture.exists()
    assert main(["fsa", "draw", str(source), str(picture.with_suffix(".dot"))]) == 0


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'seqtrain\[draw\]'"):
        draw(GRAPH)
