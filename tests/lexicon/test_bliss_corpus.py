"""Bliss XML corpora."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from seqtrain.errors import DataError
from seqtrain.lexicon.bliss_corpus import read_bliss_corpus

CORPUS = """<?xml version="1.0" encoding="utf-8"?>
<corpus name="c">
  <speaker-description name="s"><gender>female</gender></speaker-description>
  <recording name="r1" audio="r1.wav">
    <segment start="0" end="1" name="a"><orth>
      one  two
    </orth></segment>
    <segment start="1" end="2" name="b"><speaker name="s"/><orth/></segment>
  </recording>
  <subcorpus name="sub">
    <recording name="r2" audio="r2.wav"><segment name="a"><orth>trois &amp; quatre</orth></segment></recording>
  </subcorpus>
</corpus>
"""
WANTED = {"c/r1/a": "one two", "c/r1/b": "", "c/sub/r2/a": "trois & quatre"}


def test_a_corpus(tmp_path: Path) -> None:
    path = tmp_path / "corpus.xml"
    path.write_text(CORPUS)
    assert read_bliss_corpus(path) == WANTED
    packed = tmp_path / "corpus.xml.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert list(read_bliss_corpus(packed).items()) == list(WANTED.items())


def test_includes(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "b.xml").write_text(CORPUS)
    path = tmp_path / "all.xml"
    path.write_text('<corpus name="all"><include file="parts/b.xml"/></corpus>')
    assert read_bliss_corpus(path) == WANTED
    path.write_text('<corpus name="all">\n<include file="all.xml"/></corpus>')
    with pytest.raises(
        DataError, match=r"all\.xml, line 2: includes 'all\.xml', of which it is a part itself"
    ) as caught:
        read_bliss_corpus(path)
    assert caught.value.path == str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<lexicon/>", "line 1: expected <corpus>, found <lexicon>; this isn't a Bliss corpus"),
        ("<corpus name='c'>", "isn't well-formed XML"),
        ("<corpus>\n</corpus>", "line 1: a <corpus> has no name"),
        (
            "<corpus name='c'><recording name='r'>\n<segment><orth/></segment></recording></corpus>",
            "line 2: a <segment> has",
        ),
        (
            "<corpus name='c'><recording name='r'><segment name='s'/></recording></corpus>",
            "'c/r/s' has no orthography",
        ),
        (
            "<corpus name='c'><recording name='r'><segment name='s'><orth/><orth/></segment></recording></corpus>",
            "'c/r/s' has a second orthography",
        ),
        (
            "<corpus name='c'><recording name='r'>"
            + "<segment name='s'><orth/></segment>\n" * 2
            + "</recording></corpus>",
            "line 2: segment 'c/r/s' stands twice",
        ),
        (
            '<!DOCTYPE corpus [<!ENTITY a "b">]><corpus name="c"/>',
            "declares the entity 'a'; entities are refused",
        ),
    ],
)
def test_malformed_corpora(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "corpus.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_bliss_corpus(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corpus .*nowhere\.xml can't be read"):
        read_bliss_corpus(tmp_path / "nowhere.xml")
