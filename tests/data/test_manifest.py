from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqtrain.data import Utterance, read_manifest, write_manifest
from seqtrain.errors import DataError

GOOD = {"id": "a/1", "audio": "a.wav", "text": "hello  world", "duration": 1.5, "speaker": "s"}


def write(path: Path, *records: object) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    utterances = [
        Utterance("a/1", tmp_path / "sound" / "a.wav", "press one", 1.25, speaker="s"),
        Utterance("ü", tmp_path / "manifests" / "b.wav", "", 0.5),
    ]
    path = tmp_path / "manifests" / "set.jsonl"
    write_manifest(path, utterances)
    read = read_manifest(path)
    assert [(u.id, u.audio.resolve(), u.text, u.duration, u.speaker) for u in read] == [
        (u.id, u.audio, u.text, u.duration, u.speaker) for u in utterances
    ]


def test_audio_is_relative_to_the_manifest_and_white_space_is_single(tmp_path: Path) -> None:
    (utterance,) = read_manifest(write(tmp_path / "m.jsonl", GOOD, ""))
    assert utterance.audio == tmp_path / "a.wav"
    assert utterance.words == ("hello", "world")


@pytest.mark.parametrize(
    ("record", "message", "utterance"),
    [
        ("{", "line 2: isn't JSON", None),
        ("[1]", "line 2: expected a JSON object, found list", None),
        (
            {k: v for k, v in GOOD.items() if k != "text"},
            "line 2, utterance 'a/1': field 'text' is missing",
            "a/1",
        ),
        ({**GOOD, "id": 3}, "field 'id' has the value 3", None),
        ({**GOOD, "id": ""}, "line 2: the id is empty", None),
        ({**GOOD, "duration": "1"}, "field 'duration' has the value '1', which isn't of its type", "a/1"),
        ({**GOOD, "duration": True}, "field 'duration' has the value True", "a/1"),
        ({**GOOD, "duration": 0}, "duration is 0; it must be a positive number of seconds", "a/1"),
        ('{"id": "a/1", "audio": "a", "text": "", "duration": NaN}', "duration is nan", "a/1"),
        ({**GOOD, "speaker": 7}, "field 'speaker' has the value 7", "a/1"),
        (
            {**GOOD, "txet": ""},
            "field 'txet' is unknown; known are id, audio, text, duration, speaker",
            "a/1",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, record: object, message: str, utterance: str | None) -> None:
    path = write(tmp_path / "m.jsonl", {**GOOD, "id": "first"}, record)
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert message in str(caught.value)
    assert caught.value.path == str(path)
    assert caught.value.utterance == utterance


def test_an_id_stands_once(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", GOOD, "", GOOD)
    with pytest.raises(
        DataError, match=r"line 3: utterance 'a/1' stands already in line 1; ids must be unique"
    ):
        read_manifest(path)


def test_a_missing_or_unreadable_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.jsonl doesn't exist; run the recipe's prepare stage"):
        read_manifest(tmp_path / "no.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"bytes\.jsonl can't be read"):
        read_manifest(tmp_path / "bytes.jsonl")
