"""`sprint-bridge export`: RASR's export without RASR."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sprint_bridge.cli import main

GOLDENS = Path(__file__).parents[1] / "goldens" / "rasr"
SETUP = GOLDENS / "setup"


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """The command sets up logging for its process."""
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers


@pytest.mark.parametrize("variant", sorted(path.stem for path in (GOLDENS / "fsa").glob("*.npz")))
def test_the_file_is_what_rasr_wrote(
    variant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, allophones, labels = tmp_path / "out.npz", tmp_path / "allophones", tmp_path / "labels.json"
    arguments = ["export", "--rasr-config", str(SETUP / f"{variant}.config"), "--out", str(out)]
    assert main([*arguments, "--allophones", str(allophones), "--labels", str(labels), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    with np.load(out) as made, np.load(GOLDENS / "fsa" / f"{variant}.npz") as wanted:
        assert list(made) == list(wanted)
        for name in wanted:
            assert (made[name].dtype, made[name].shape) == (wanted[name].dtype, wanted[name].shape)
            if name.endswith("|weights"):
                np.testing.assert_allclose(made[name], wanted[name], rtol=0, atol=1e-6)
            else:
                np.testing.assert_array_equal(made[name], wanted[name])
        assert report["edges"] == sum(int(made[name]) for name in made if name.endswith("|num_edges"))
    assert allophones.read_text() == (GOLDENS / "allophones" / f"{variant}.txt").read_text()
    assert (report["segments"], report["classes"]) == (6, len(json.loads(labels.read_text())))
    assert report["allophones"] == len(allophones.read_text().splitlines()) - 1


def test_some_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "out.npz"
    arguments = ["export", "--rasr-config", str(SETUP / "mono1.config"), "--out", str(out)]
    chosen = ["--segment", "toy/rec2/seg1", "--segment", "toy/rec1/seg2", "--segment", "toy/rec2/seg1"]
    assert main([*arguments, *chosen]) == 0
    assert capsys.readouterr().out == f"{out}: 2 segments, 21 states, 49 edges, 12 classes, 19 allophones\n"
    with np.load(out) as made:
        assert [name for name in made if name.endswith("|edges")] == [
            "toy/rec2/seg1|edges",
            "toy/rec1/seg2|edges",
        ]
    assert main([*arguments, "--segment", "rec1/seg2"]) == 2
    assert "sprint-bridge: no segment 'rec1/seg2' among the 6 of the corpus" in capsys.readouterr().err


def test_unknown_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["export", "--rasr-config", str(SETUP / "ctc.config"), "--out", str(tmp_path / "out.npz")]
    assert main(arguments) == 0
    assert caplog.messages == ["segment 'toy/rec3/seg1': not in the lexicon: '[NOISE]'; skipped"]
    capsys.readouterr()
    assert main([*arguments, "--unknown-words", "raise"]) == 2
    assert (
        capsys.readouterr().err == "sprint-bridge: segment 'toy/rec3/seg1': not in the lexicon: '[NOISE]'\n"
    )


def test_variables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "elsewhere.config"
    config.write_text((SETUP / "mono3.config").read_text().replace("SETUP = .\n", ""))
    arguments = ["export", "--rasr-config", str(config), "--out", str(tmp_path / "out.npz")]
    assert main(arguments) == 2
    assert "lexicon_sillast.xml can't be read" in capsys.readouterr().err
    assert main([*arguments, "--set", f"SETUP={SETUP}"]) == 0
    assert main([*arguments, "--set", "SETUP"]) == 2
    assert "--set 'SETUP': expected NAME=VALUE" in capsys.readouterr().err


def test_what_cannot_be_read_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.config"
    assert main(["export", "--rasr-config", str(missing), "--out", str(tmp_path / "out.npz")]) == 2
    assert f"configuration {missing} can't be read" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out.npz"
    assert main(["export", "--rasr-config", str(SETUP / "mono1.config"), "--out", str(out)]) == 2
    assert f"{out} can't be written" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["export", "--out", str(out)])
    assert "--rasr-config" in capsys.readouterr().err
