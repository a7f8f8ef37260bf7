"""`seqtrain fsa` on files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqtrain.cli import main
from seqtrain.fsa import Fsa
from seqtrain.fsa.graph_files import read_graph, write_graph
from seqtrain.fsa.wfst import Wfst

BRANCHES = Fsa([[0, 1, 0], [0, 1, 1], [0, 2, 1], [1, 3, 0], [2, 3, 0]], [-0.5, -1.0, -1.5, 0.0, -0.2])


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "graph.fst"
    write_graph(Wfst.from_fsa(BRANCHES), path)
    return path


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_info(graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fsa", "info", str(graph), "--json"]) == 0
    assert printed(capsys) == {
        "states": 4, "arcs": 5, "final_states": 1, "start": 0, "labels": 2, "acceptor": True, "epsilons": 0,
        "deterministic": False, "acyclic": True, "connected": True, "fewest_frames": 2,
    }  # fmt: skip
    assert main(["fsa", "info", str(graph)]) == 0
    assert "fewest frames   2" in capsys.readouterr().out


def test_determinize_minimize_equal(graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, text = tmp_path / "one.fst", tmp_path / "two.fst", tmp_path / "two.txt"
    log = ["--semiring", "log"]
    assert main(["fsa", "determinize", str(graph), str(one), *log, "--json"]) == 0
    assert printed(capsys)["deterministic"] is True
    assert main(["fsa", "minimize", str(one), str(two), *log, "--json"]) == 0
    facts = printed(capsys)
    assert (facts["states"], facts["file"]) == (3, str(two))
    assert main(["fsa", "convert", str(two), str(text)]) == 0
    capsys.readouterr()
    assert main(["fsa", "equal", str(graph), str(text), *log, "--json"]) == 0
    assert printed(capsys) == {"equal": True}
    # The best paths are others than the sums.
    assert main(["fsa", "equal", str(graph), str(text), "--semiring", "tropical"]) == 1
    assert capsys.readouterr().out == "different\n"


def test_compose_text_with_symbols(tmp_path: Path) -> None:
    words, lexicon, grammar, made = (
        tmp_path / name for name in ("words", "lexicon.txt", "grammar.txt", "made.fst")
    )
    words.write_text("<eps> 0\na 1\nb 2\n")
    lexicon.write_text("0 1 a b 0.5\n1\n")
    grammar.write_text("0 1 b b 0.25\n1\n")
    symbols = ["--transducer", "--symbols", str(words), "--output-symbols", str(words)]
    assert main(["fsa", "compose", str(lexicon), str(grammar), str(made), *symbols]) == 0
    result = read_graph(made)
    assert result.arcs.tolist() == [[0, 1, 1, 2]]
    assert result.weights.tolist() == [-0.75]
    assert result.output_symbols == {0: "<eps>", 1: "a", 2: "b"}


def test_draw(graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "graph.dot"
    assert main(["fsa", "draw", str(graph), str(picture)]) == 0
    assert picture.read_text().startswith("digraph FST {")
    assert main(["fsa", "draw", str(graph), str(tmp_path / "graph.gif")]) == 2
    assert "must end in .dot, .svg, .pdf, .png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "missing.fst"], "can't be read as an OpenFst file"),
        (["convert", "graph.fst", "graph.abc"], "doesn't end in one of .fst, .txt, .k2, .pt"),
        (["minimize", "graph.fst", "out.fst", "--semiring", "log"], "isn't deterministic"),
    ],
)
def test_errors_have_status_2(
    graph: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(graph.parent)
    assert main(["fsa", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_semiring_has_to_be_named(graph: Path) -> None:
    with pytest.raises(SystemExit) as status:
        main(["fsa", "determinize", str(graph), "out.fst"])
    assert status.value.code == 2
