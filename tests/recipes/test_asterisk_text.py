from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from recipes.asterisk.splits import novel_ids, standard_ids
from recipes.asterisk.text import read_prompts, spoken
from seqtrain.errors import DataError


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("Agent logged in.", "agent logged in"),
        ("[ascending tones]", ""),
        ("<beep ascending>", ""),
        ("(3 seconds of silence)", ""),
        ('IAX (note: does not say "2")', "iax"),
        ("at [@]", "at"),
        ("Please press 1 to mute, 10 for more", "please press one to mute ten for more"),
        ("dial 500 or 8500", "dial five hundred or eight five zero zero"),
        ("extension 1234, password 42", "extension one two three four password forty two"),
        ("at least a 28.8 kilobit modem", "at least a twenty eight point eight kilobit modem"),
        ("H323", "h three two three"),
        ("press * or #", "press star or pound"),
        ("visit www.asterisk.org.", "visit www dot asterisk dot org"),
        ("Waldo's \"don't call\" menu", "waldo's don't call menu"),
        ("Call-Forward 'quoted' ...", "call forward quoted"),
        ("A.M.", "a m"),
    ],
)
def test_prompts_as_they_are_spoken(prompt: str, words: str) -> None:
    assert spoken(prompt) == words


def test_the_list_is_read(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt.gz"
    path.write_bytes(gzip.compress(b"; comment\n\nletters/colon: colon: [:]\nhello:  Hello. \n"))
    assert read_prompts(path) == {"letters/colon": "colon: [:]", "hello": "Hello."}


def test_a_broken_list_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt.gz"
    with pytest.raises(DataError, match=r"prompts\.txt\.gz can't be read"):
        read_prompts(path)
    path.write_bytes(gzip.compress(b"hello: Hello\n" * 100)[:-20])
    with pytest.raises(DataError, match=r"prompts\.txt\.gz can't be read"):
        read_prompts(path)
    path.write_bytes(gzip.compress(b"hello: Hello\nnothing\n"))
    with pytest.raises(DataError, match=r"line 2: no colon between name and text"):
        read_prompts(path)


def test_utterances_of_the_same_text_are_on_the_same_side() -> None:
    texts = {f"u{i}": f"text number {i % 50}" for i in range(100)}
    held = standard_ids(texts)
    assert 0 < len(held) < 30
    assert {name for name in texts if f"u{(int(name[1:]) + 50) % 100}" in held} == held


def test_novel_utterances_share_no_trigram() -> None:
    texts = {
        "a": "please press one now",
        "b": "you may press one now",
        "c": "weasels have eaten our phone system",
        "d": "two words",
        "e": "say say say say",
        "f": "weasels have eaten",
        "g": "a sentence of its own",
    }
    assert novel_ids(texts) == {"e", "g"}
    assert novel_ids(texts, order=2) == {"d", "e", "g"}
