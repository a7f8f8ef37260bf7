from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from seqtrain.cli import score
from seqtrain.errors import DataError, OutOfVocabularyError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "reference").write_text("one press one now\ntwo press two\n")
    (tmp_path / "hypothesis.jsonl").write_text(
        '{"id": "two", "text": "press two"}\n{"id": "one", "text": "press nine"}\n'
    )
    (tmp_path / "lexicon.txt").write_text("press P R EH S\none W AH N\nnine N AY N\nnow N AW\ntwo T UW\n")
    return tmp_path


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    score.add_parser(parser.add_subparsers())
    return score.run(parser.parse_args(["score", *map(str, arguments)]))


def test_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = folder / "reference", folder / "hypothesis.jsonl"
    assert run(*files, "--lexicon", folder / "lexicon.txt", "--characters", "--worst", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    # WER: one for nine, now left out, of 5. PER: W AH N N AW against N AY N, of 15: two substituted, two left out.
    # CER: onenow against nine, of 19.
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["WER", "40.00%"],
        ["PER", "26.67%"],
        ["CER", "21.05%"],
    ]
    assert lines[1].split()[-5:] == ["2", "5", "1", "0", "1"]
    assert lines[4].startswith("2 utterances")
    assert lines[5:] == ["", "one: 2 of 3 words", "  said  press one now", "  found press nine"]


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder / "reference", folder / "hypothesis.jsonl", "--json", "--worst", "1") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["utterances"] == 2
    assert found["wer"]["percent"] == 40.0
    assert found["wer"]["substitutions"] == found["wer"]["deletions"] == 1
    assert found["wer"]["interval"] == pytest.approx([0.0, 200 / 3])
    assert [item["id"] for item in found["worst"]] == ["one"]


def test_missing_hypotheses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "hypothesis").write_text("two press two\n")
    files = folder / "reference", folder / "hypothesis"
    with pytest.raises(
        DataError, match=r"lacks 1 of 2 utterances, the first is 'one'.*--missing-is-empty"
    ) as caught:
        run(*files)
    assert caught.value.utterance == "one"
    assert run(*files, "--missing-is-empty", "--json") == 0
    assert json.loads(capsys.readouterr().out)["wer"]["deletions"] == 3


def test_references_without_words_have_no_rate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "reference").write_text("one\n")
    (folder / "hypothesis").write_text("one press\n")
    files = folder / "reference", folder / "hypothesis"
    assert run(*files, "--json") == 0
    found = json.loads(capsys.readouterr().out)["wer"]
    assert (found["percent"], found["interval"], found["insertions"]) == (None, None, 1)
    assert run(*files) == 0
    assert "inf%" in capsys.readouterr().out


def test_what_does_not_fit_is_named(folder: Path) -> None:
    (folder / "hypothesis").write_text("one press\ntwo two\nthree press\n")
    with pytest.raises(DataError, match=r"1 utterance\(s\) that .* doesn't have, the first is 'three'"):
        run(folder / "reference", folder / "hypothesis")
    (folder / "empty").write_text("")
    with pytest.raises(DataError, match="empty holds no utterance"):
        run(folder / "empty", folder / "hypothesis")
    (folder / "hypothesis").write_text("one press eight\ntwo two\n")
    with pytest.raises(OutOfVocabularyError, match="utterance 'one': not in the lexicon: 'eight'"):
        run(folder / "reference", folder / "hypothesis", "--lexicon", folder / "lexicon.txt")
