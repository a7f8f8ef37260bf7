from __future__ import annotations

import argparse
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from seqtrain.cli import align
from seqtrain.errors import ArgumentError, DataError, InfeasibleError, OutOfVocabularyError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A lexicon, texts, and scores that leave no doubt."""
    (tmp_path / "lexicon.txt").write_text("see S I\neasy I Z I\n")
    (tmp_path / "text").write_text("menu/1 see easy\nmenu/2 see\nunused easy\n")
    # Columns with CTC: blank, I, S, Z. With an HMM: silence, I, S, Z.
    scores = {"menu/1": [0, 2, 2, 1, 0, 1, 3, 1], "menu/2": [2, 1, 1]}
    with zipfile.ZipFile(tmp_path / "scores.npz", "w") as archive:
        for tag, columns in scores.items():
            with archive.open(f"{tag}.npy", "w") as file:
                np.save(file, 20 * np.eye(4, dtype=np.float16)[columns] - 20)
    return tmp_path


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    align.add_parser(parser.add_subparsers())
    return align.run(parser.parse_args(["align", *map(str, arguments)]))


def options(folder: Path, *more: str) -> list[str | Path]:
    files: list[str | Path] = [
        folder / "scores.npz",
        "--lexicon",
        folder / "lexicon.txt",
        "--text",
        folder / "text",
        "--out",
        folder / "out",
    ]
    return [*files, "--frame-shift", "0.1", *more]


@pytest.mark.parametrize("topology", ["hmm", "ctc"])
def test_scores_become_ctm(folder: Path, topology: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*options(folder, "--topology", topology), "--format", "ctm", "phones.ctm", "--json") == 0
    assert (folder / "out" / "words.ctm").read_text() == (
        "menu/1 1 0.100 0.300 see\nmenu/1 1 0.500 0.300 easy\nmenu/2 1 0.000 0.300 see\n"
    )
    assert (
        (folder / "out" / "phones.ctm")
        .read_text()
        .startswith("menu/1 1 0.100 0.200 S\nmenu/1 1 0.300 0.100 I\n")
    )
    assert json.loads(capsys.readouterr().out) == {
        "utterances": 2,
        "words": 3,
        "files": [str(folder / "out" / "words.ctm"), str(folder / "out" / "phones.ctm")],
    }


def test_other_formats(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*options(folder), "--format", "textgrid", "jsonl") == 0
    assert 'text = "see"' in (folder / "out" / "textgrid" / "menu" / "1.TextGrid").read_text()
    assert len((folder / "out" / "alignments.jsonl").read_text().splitlines()) == 2
    assert capsys.readouterr().out == f"2 utterances, 3 words: {folder / 'out'}\n"


def test_what_is_wrong_is_named(folder: Path) -> None:
    with pytest.raises(ArgumentError, match="aligning scores needs --lexicon"):
        run(folder / "scores.npz", "--out", folder)
    with pytest.raises(ArgumentError, match=r"scores\.txt is neither scores \(\.npz\) nor .* \(\.toml\)"):
        run(folder / "scores.txt", "--out", folder)
    with pytest.raises(
        DataError, match=r"'menu/1' has float16 \(8, 4\); it must be .* \(frames, 10\)"
    ) as caught:
        run(*options(folder), "--states-per-phone", "3")
    assert caught.value.utterance == "menu/1"
    (folder / "text").write_text("menu/1 see easy\n")
    with pytest.raises(DataError, match=r"lacks 1 of the 2 utterances in .*, the first is 'menu/2'"):
        run(*options(folder))
    (folder / "text").write_text("menu/1 see easy\nmenu/2 see easy\n")
    with pytest.raises(InfeasibleError, match=r"menu/2.*3 frames given, needs 5"):
        run(*options(folder))
    (folder / "text").write_text("menu/1 see press\nmenu/2 see\n")
    with pytest.raises(OutOfVocabularyError, match="'menu/1': not in the lexicon: 'press'"):
        run(*options(folder))


def array_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text", array_file()])
def test_broken_scores_are_named(folder: Path, content: bytes) -> None:
    (folder / "scores.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"scores .*scores\.npz can't be read"):
        run(*options(folder))
