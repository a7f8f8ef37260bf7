"""Transcripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqtrain.errors import DataError
from seqtrain.lexicon import read_transcripts


def test_text(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("u1 one  two\n\nu2\nu3\tthree\n", encoding="utf-8")
    assert read_transcripts(path) == {"u1": "one two", "u2": "", "u3": "three"}


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"id": "u 1", "text": " one  two", "duration": 1.5}\n\n{"id": "u2", "text": ""}\n')
    assert read_transcripts(path) == {"u 1": "one two", "u2": ""}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("text", "a one\na two", "line 2: utterance 'a' stands twice"),
        ("t.jsonl", '{"id": "a", "text": ""}\n{"id": "a", "text": ""}', "line 2: utterance 'a' stands twice"),
        ("t.jsonl", "{", "line 1: isn't JSON"),
        ("t.jsonl", "[]", "line 1: expected a JSON object"),
        ("t.jsonl", '{"id": "a"}', "line 1: needs the strings 'id'"),
        ("t.jsonl", '{"id": "", "text": "x"}', "line 1: needs the strings 'id'"),
    ],
)
def test_malformed_transcripts(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_transcripts(path)
    assert caught.value.path == str(path)


def test_unreadable_transcripts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_transcripts(tmp_path / "missing")
    (tmp_path / "latin").write_bytes(b"a \xe4\n")
    with pytest.raises(DataError, match="can't be read"):
        read_transcripts(tmp_path / "latin")
