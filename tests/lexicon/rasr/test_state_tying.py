"""State tying."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seqtrain.errors import ConfigError, LexiconError
from seqtrain.lexicon.bliss import BlissPhoneme
from seqtrain.lexicon.rasr.allophones import AllophoneInventory
from seqtrain.lexicon.rasr.configuration import Configuration
from seqtrain.lexicon.rasr.phonology import Phonology
from seqtrain.lexicon.rasr.state_tying import STATE_TYINGS, StateTying, make_state_tying
from tests.lexicon.rasr.setup import GOLDENS, golden_builder

PHONEMES = (BlissPhoneme("[S]", False), BlissPhoneme("A"), BlissPhoneme("B"), BlissPhoneme("[N]", False))


def inventory() -> AllophoneInventory:
    allophones = AllophoneInventory(Phonology(PHONEMES, across_words=True))
    allophones.add_from_lexicon([(1,), (2, 3), (3, 2, 2), (4,)])
    return allophones


def make(folder: Path, *lines: str) -> StateTying:
    path = folder / "tying.config"
    path.write_text("\n".join(lines))
    return make_state_tying(Configuration(path), inventory(), states_per_phone=2, silence=1)


def classes(tying: StateTying, *names: str) -> list[int]:
    found = []
    for name in names:
        allophone, _, state = name.rpartition(".")
        found.append(tying.class_of(inventory().parse(allophone), int(state)))
    return found


def test_monophone(tmp_path: Path) -> None:
    tying = make(tmp_path, "type = monophone")
    assert tying.labels() == ("[S].0", "A.0", "A.1", "B.0", "B.1", "[N].0", "[N].1")
    assert tying.num_classes == 7
    assert classes(tying, "[S]{#+#}@i@f.0", "A{B+A}.1", "B{#+A}@i.0", "[N]{#+#}@i@f.1") == [0, 2, 3, 6]


def test_monophone_with_ends_of_words(tmp_path: Path) -> None:
    tying = make(tmp_path, "type = monophone-eow")
    # B ends a word before A does, as the allophones go.
    assert tying.labels()[7:] == ("B@eow.0", "B@eow.1", "A@eow.0", "A@eow.1")
    assert classes(tying, "A{B+A}.1", "A{A+#}@f.1", "B{A+#}@f.0", "[N]{#+#}@i@f.1", "[S]{#+#}@i@f.0") == [
        2,
        10,
        7,
        6,
        0,
    ]


def test_dense(tmp_path: Path) -> None:
    tying = make(tmp_path, "type = no-tying-dense")
    labels = tying.labels()
    assert tying.num_classes == len(labels) == len(set(labels)) == 5 * 2 * 5 * 5
    names = ("A{B+A}.1", "A{#+B}@i.0", "[S]{#+#}@i@f.0")
    assert classes(tying, *names) == [((2 * 2 + 1) * 5 + 3) * 5 + 2, (2 * 2 * 5 + 0) * 5 + 3, 1 * 2 * 25]
    assert [labels[number] for number in classes(tying, *names)] == ["A{B+A}.1", "A{#+B}.0", "[S]{#+#}.0"]
    plain = make(tmp_path, "type = monophone-dense")
    assert classes(plain, *names) == [5, 4, 2]
    assert plain.labels()[5] == "A.1"


def test_dense_with_places(tmp_path: Path) -> None:
    names = ("A{B+A}.1", "A{#+B}@i.1", "A{B+#}@f.1", "A{#+#}@i@f.1")
    places = make(tmp_path, "type = monophone-dense", "use-boundary-classes = yes")
    assert classes(places, *names) == [20, 21, 22, 23]
    assert [places.labels()[number] for number in (20, 21, 22, 23)] == ["A.1", "A@i.1", "A@f.1", "A@i@f.1"]
    ends = make(tmp_path, "type = monophone-dense", "use-word-end-classes = yes")
    assert classes(ends, *names) == [10, 10, 11, 11]
    both = make(tmp_path, "type = no-tying-dense", "use-word-end-classes = yes")
    assert classes(both, "A{B+#}@f.1") == [((5 * 2 + 1) * 5 + 3) * 5]
    with pytest.raises(ConfigError, match="use-boundary-classes and use-word-end-classes exclude each other"):
        make(tmp_path, "type = monophone-dense", "*.use-boundary-classes = yes", "use-word-end-classes = yes")


def test_lookup(tmp_path: Path) -> None:
    (tmp_path / "table").write_text(
        "# a table\n[S]{#+#}@i@f.0 4\nA{#+B}@i.0 1\nA{#+B}@i.1 1\nB{A+#}@f.0 3\n\n"
    )
    tying = make(tmp_path, "type = lookup", "file = table")
    assert tying.num_classes == 5
    assert classes(tying, "[S]{#+#}@i@f.0", "A{#+B}@i.1") == [4, 1]
    assert tying.labels() == ("class 0", "A{#+B}@i.0", "class 2", "B{A+#}@f.0", "[S]{#+#}@i@f.0")
    with pytest.raises(LexiconError, match=r"has no class of B\{A\+#\}@f\.1"):
        classes(tying, "B{A+#}@f.1")
    for text, message in (
        ("A 1", "line 1: expected `allophone.state class`, found 'A 1'"),
        ("\n", "has no line"),
    ):
        (tmp_path / "table").write_text(text)
        with pytest.raises(LexiconError, match=message):
            make(tmp_path, "type = lookup", "file = table")
    with pytest.raises(LexiconError, match=r"state tying .*missing can't be read"):
        make(tmp_path, "type = lookup", "file = missing")
    with pytest.raises(ConfigError, match="has no value of file"):
        make(tmp_path, "type = lookup")


def test_a_lookup_is_as_good_as_what_it_was_made_of(tmp_path: Path) -> None:
    golden = golden_builder("tri3_mono")
    lines = []
    for allophone in golden.model.allophones.allophones:
        name = golden.model.allophones.phonology.name(allophone)
        for state in range(1 if name.startswith("[SILENCE]") else 3):
            lines.append(f"{name}.{state} {golden.model.tying.class_of(allophone, state)}\n")
    (tmp_path / "table").write_text("".join(lines))
    for name in ("corpus.xml", "lexicon.xml"):
        (tmp_path / name).write_text((GOLDENS / "setup" / name).read_text())
    text = (GOLDENS / "setup" / "tri3_mono.config").read_text()
    (tmp_path / "x.config").write_text(
        text.replace("type = monophone", "type = lookup\nfile = $(SETUP)/table")
    )
    built = type(golden).from_config(tmp_path / "x.config")
    for segment in golden.segments:
        np.testing.assert_array_equal(built.build(segment).arcs, golden.build(segment).arcs)
    assert built.inventory.silence == golden.inventory.silence


def test_unknown_types(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="type is 'no-tying'; it must be one of " + ", ".join(STATE_TYINGS)):
        make(tmp_path, "type = no-tying")
    with pytest.raises(ConfigError, match="has no value of type"):
        make(tmp_path)
