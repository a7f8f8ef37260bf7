"""Files and words of a RASR setup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqtrain.errors import ConfigError, DataError
from sprint_bridge.rasr.digest import describe_arguments
from sprint_bridge.rasr.executable import control_arguments
from sprint_bridge.rasr.labels import read_label_inventory
from sprint_bridge.rasr.orthography import Vocabulary, rasr_orthography
from tests.bridge.stand_in import LEXICON


def test_labels(tmp_path: Path) -> None:
    labels = ("sil", "a{#+b}@i.0", "ö")
    (tmp_path / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    (tmp_path / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    for name in ("labels.txt", "labels.json"):
        inventory = read_label_inventory(tmp_path / name, silence="sil")
        assert (inventory.labels, inventory.silence, inventory.blank) == (labels, 0, None)
    for name, text, message in (
        ("a.txt", "", "there are none"),
        ("a.txt", "a\n\nb\n", "number 1 is empty"),
        ("a.txt", "a\nb\na\n", "label 'a' stands twice"),
        ("a.txt", "a\nb\n", "no label 'sil' among the 2"),
        ("a.json", '{"a": 0}', "can't be read: it isn't a list of strings"),
        ("a.json", "[", "can't be read: Expecting value"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=message) as caught:
            read_label_inventory(tmp_path / name, silence="sil")
        assert caught.value.path == str(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "written"),
    [("", ""), (" \n", ""), ("one", "one "), ("  one\ttwo \u00a0 three", "one two three ")],
)
def test_orthographies(text: str, written: str) -> None:
    assert rasr_orthography(text) == written


def test_vocabulary() -> None:
    assert Vocabulary(None).check("anything goes") is None
    vocabulary = Vocabulary(LEXICON, extra_words=["[SILENCE]"])
    assert vocabulary.check("one [SILENCE] two") is None
    error = vocabulary.check("one nine two eleven nine", segment="a/b")
    assert error is not None
    assert (error.words, error.utterance, str(error)) == (
        ("nine", "eleven"),
        "a/b",
        "not in the lexicon: 'nine', 'eleven'",
    )


def test_arguments() -> None:
    plain = control_arguments(
        module_path=Path("/m"), module="c", options={"c2p_fd": "3", "p2c_fd": "4"}, segment_order=False
    )
    assert plain == [
        "--*.python-control-enabled=true",
        "--*.pymod-path=/m",
        "--*.pymod-name=c",
        "--*.pymod-config=c2p_fd:3,p2c_fd:4",
    ]
    ordered = control_arguments(
        module_path=Path("/m"), module="c", options={"c2p_fd": "3", "p2c_fd": "4"}, segment_order=True
    )
    assert ordered[:4] == plain
    assert ordered[4:] == [
        "--*.python-segment-order=true",
        "--*.python-segment-order-pymod-path=/m",
        "--*.python-segment-order-pymod-name=c",
        "--*.python-segment-order-config=c2p_fd:3,p2c_fd:4",
        "--*.python-segment-order-allow-copy=false",
    ]


def test_a_configuration_counts_by_its_content(tmp_path: Path) -> None:
    for name in ("a.config", "b.config"):
        (tmp_path / name).write_text("x = 1")
    one, other = (
        describe_arguments([f"--config={tmp_path / name}", "--*.y=2"], [tmp_path / name])
        for name in ("a.config", "b.config")
    )
    assert one == other
    (tmp_path / "b.config").write_text("x = 2")
    assert describe_arguments([f"--config={tmp_path / 'b.config'}", "--*.y=2"], []) != one[:2]
    with pytest.raises(ConfigError, match=r"digest_files: /nowhere can't be read") as caught:
        describe_arguments([], [Path("/nowhere")])
    assert caught.value.key == "digest_files"
