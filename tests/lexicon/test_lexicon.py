"""The lexicon itself, and its plain-text form."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtrain.errors import LexiconError
from seqtrain.lexicon import Lexicon, Pronunciation, read_lexicon, write_lexicon

NAMES = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=4).filter(
    lambda text: text.split() == [text] and not text.startswith(";;;")
)
VARIANTS = st.lists(
    st.lists(st.sampled_from("ABCD"), min_size=1, max_size=4).map(tuple), min_size=1, max_size=3, unique=True
)


def test_phonemes_are_sorted_behind_silence() -> None:
    lexicon = Lexicon({"b": [["Z", "A"]], "a": [["M"], ["Z"]]})
    assert lexicon.phonemes == ("[SILENCE]", "A", "M", "Z")
    assert lexicon["a"] == (Pronunciation(("M",)), Pronunciation(("Z",)))
    assert list(lexicon) == ["b", "a"]
    assert Lexicon({"a": [["M"]]}, silence=None).phonemes == ("M",)


def test_an_inventory_of_ones_own_keeps_its_order() -> None:
    lexicon = Lexicon({"a": [["M"]]}, phonemes=["Z", "M", "SIL"], silence="SIL")
    assert lexicon.phonemes == ("Z", "M", "SIL")


def test_missing_words_in_order_of_appearance() -> None:
    lexicon = Lexicon({"a": [["M"]]})
    assert lexicon.missing_words(["a z", "y a z"]) == ("z", "y")
    assert lexicon.missing_words(["a a", ""]) == ()


def test_normalized_weights_sum_to_one() -> None:
    lexicon = Lexicon({"a": [Pronunciation(("M",), -1.0), Pronunciation(("N",), 2.0)], "b": [("M",)]})
    weights = [variant.log_weight for variant in lexicon.normalized()["a"]]
    assert math.fsum(map(math.exp, weights)) == pytest.approx(1.0, abs=1e-15)
    assert weights[1] - weights[0] == pytest.approx(3.0)
    assert lexicon.normalized()["b"][0].log_weight == 0.0


def test_the_digest_tells_everything_apart() -> None:
    words = {"a": [["M", "N"]], "b": [["N"]]}
    base = Lexicon(words)
    assert base.digest == Lexicon(dict(reversed(words.items()))).digest
    others = [
        Lexicon({**words, "c": [["N"]]}),
        Lexicon({**words, "b": [Pronunciation(("N",), -0.1)]}),
        Lexicon(words, silence="SIL"),
        Lexicon(words, silence=None),
        Lexicon(words, phonemes=["N", "M"]),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"": [("A",)]}, "word '' is empty"),
        ({"a b": [("A",)]}, "word 'a b' is empty or holds white space"),
        ({"a": []}, "word 'a' has no pronunciation"),
        ({"a": [()]}, "word 'a' has an empty pronunciation"),
        ({"a": [("A",), ("A",)]}, "word 'a' has the pronunciation 'A' twice"),
        ({"a": [Pronunciation(("A",), math.nan)]}, "word 'a': pronunciation 'A' has weight nan"),
        ({"a": [Pronunciation(("A",), math.inf)]}, "word 'a': pronunciation 'A' has weight inf"),
        ({"a": [("X Y",)]}, "phoneme 'X Y' is empty or holds white space"),
    ],
)
def test_malformed_words(words: dict[str, list[tuple[str, ...]]], message: str) -> None:
    with pytest.raises(LexiconError, match=message):
        Lexicon(words)


def test_malformed_inventories() -> None:
    with pytest.raises(
        LexiconError, match="word 'a': phoneme 'B' isn't in the inventory of 2 phonemes"
    ) as caught:
        Lexicon({"a": [("B",)]}, phonemes=["A"])
    assert caught.value.word == "a"
    with pytest.raises(LexiconError, match="phoneme 'A' stands twice"):
        Lexicon({"a": [("A",)]}, phonemes=["A", "A"])
    with pytest.raises(LexiconError, match="word 'a': all pronunciations have probability 0"):
        Lexicon({"a": [Pronunciation(("A",), -math.inf)]}).normalized()


def test_reading_text(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text(";;; a comment\none  W AH N\n\nread R EH D\nread\tR IY D\n", encoding="utf-8")
    lexicon = read_lexicon(path, silence="SIL")
    assert dict(lexicon) == {
        "one": (Pronunciation(("W", "AH", "N")),),
        "read": (Pronunciation(("R", "EH", "D")), Pronunciation(("R", "IY", "D"))),
    }
    assert lexicon.phonemes[0] == "SIL"
    packed = tmp_path / "lexicon.txt.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_lexicon(packed, silence="SIL").digest == lexicon.digest


def test_reading_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "lexiconp.txt"
    path.write_text("a 0.25 M\na 1 N\n", encoding="utf-8")
    variants = read_lexicon(path, probabilities=True)["a"]
    assert variants == (Pronunciation(("M",), math.log(0.25)), Pronunciation(("N",), 0.0))


@pytest.mark.parametrize(
    ("text", "line", "word", "message"),
    [
        ("a M\nb\n", 2, "b", "line 2: word 'b' has no phonemes"),
        ("a M\n\na M\n", 3, "a", "line 3: word 'a' has this pronunciation already"),
    ],
)
def test_malformed_text(tmp_path: Path, text: str, line: int, word: str, message: str) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LexiconError, match=message) as caught:
        read_lexicon(path)
    assert (caught.value.line, caught.value.word) == (line, word)


@pytest.mark.parametrize("second", ["M", "0", "1.5", "nan", ""])
def test_malformed_probabilities(tmp_path: Path, second: str) -> None:
    path = tmp_path / "lexiconp.txt"
    path.write_text(f"a 1 M\nb {second}\n", encoding="utf-8")
    with pytest.raises(LexiconError, match="line 2: word 'b' needs a probability") as caught:
        read_lexicon(path, probabilities=True)
    assert caught.value.line == 2


def test_unreadable_text(tmp_path: Path) -> None:
    with pytest.raises(LexiconError, match="can't be read"):
        read_lexicon(tmp_path / "missing.txt")
    for name, content in (("latin.txt", "ä A".encode("latin-1")), ("broken.txt.gz", b"not gzip")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LexiconError, match=f"{name} can't be read"):
            read_lexicon(tmp_path / name)
    cut = tmp_path / "cut.txt.gz"
    cut.write_bytes(gzip.compress(b"a A\n" * 100)[:-12])
    with pytest.raises(LexiconError, match=r"cut\.txt\.gz can't be read"):
        read_lexicon(cut)
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(LexiconError, match="holds no word"):
        read_lexicon(tmp_path / "empty.txt")


def test_weights_need_a_lexicon_with_probabilities(tmp_path: Path) -> None:
    with pytest.raises(LexiconError, match="pass probabilities=True"):
        write_lexicon(tmp_path / "lexicon.txt", Lexicon({"a": [Pronunciation(("A",), -0.5)]}))


@given(words=st.dictionaries(NAMES, VARIANTS, min_size=1, max_size=5))
def test_text_round_trip(
    tmp_path_factory: pytest.TempPathFactory, words: dict[str, list[tuple[str, ...]]]
) -> None:
    path = tmp_path_factory.mktemp("lexicon") / "lexicon.txt"
    lexicon = Lexicon(words)
    write_lexicon(path, lexicon)
    assert dict(read_lexicon(path)) == dict(lexicon)


def test_text_round_trip_with_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "lexiconp.txt"
    lexicon = Lexicon({"a": [Pronunciation(("A",), -0.5), Pronunciation(("B",), -7.25)]})
    write_lexicon(path, lexicon, probabilities=True)
    back = read_lexicon(path, probabilities=True)["a"]
    assert [v.log_weight for v in back] == pytest.approx([-0.5, -7.25], abs=1e-14)
