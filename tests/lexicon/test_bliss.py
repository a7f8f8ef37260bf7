"""Bliss XML lexica."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest

from seqtrain.errors import LexiconError
from seqtrain.lexicon import Pronunciation, read_bliss_lexicon, read_lexicon

INVENTORY = """<phoneme-inventory>
  <phoneme><symbol>AA</symbol><variation>context</variation></phoneme>
  <phoneme><symbol>[SILENCE]</symbol><variation>none</variation></phoneme>
  <phoneme><symbol>T</symbol></phoneme>
</phoneme-inventory>
"""
SILENCE = (
    '<lemma special="silence"><orth>[SILENCE]</orth><orth></orth><phon>[SILENCE]</phon><synt/></lemma>\n'
)


def write(path: Path, body: str) -> Path:
    path.write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n<lexicon>\n{body}</lexicon>\n', encoding="utf-8"
    )
    return path


def test_a_lexicon(tmp_path: Path) -> None:
    path = write(
        tmp_path / "lexicon.xml",
        INVENTORY
        + SILENCE
        + '<lemma special="unknown"><orth>[UNKNOWN]</orth><phon>AA</phon></lemma>\n'
        + "<lemma><orth>at</orth><orth> At\n</orth><phon> AA  T </phon>"
        + "<phon score='0.7'>T</phon><eval/></lemma>\n"
        + "<lemma><orth>ta</orth><phon weight='0.5'>T AA</phon></lemma>\n"
        + "<lemma><orth>unsaid</orth></lemma>\n",
    )
    lexicon = read_bliss_lexicon(path)
    at = (Pronunciation(("AA", "T")), Pronunciation(("T",), -0.7))
    assert dict(lexicon) == {"at": at, "At": at, "ta": (Pronunciation(("T", "AA"), math.log(0.5)),)}
    assert lexicon.phonemes == ("AA", "[SILENCE]", "T")
    assert (lexicon.silence, lexicon.blank) == ("[SILENCE]", None)
    assert read_lexicon(path).digest == lexicon.digest
    packed = tmp_path / "lexicon.xml.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_lexicon(packed).digest == lexicon.digest


def test_a_blank_of_its_own(tmp_path: Path) -> None:
    path = write(
        tmp_path / "lexicon.xml",
        "<phoneme-inventory><phoneme><symbol>&lt;blk&gt;</symbol></phoneme><phoneme><symbol>T</symbol></phoneme>"
        "</phoneme-inventory><lemma special='blank'><orth>[B]</orth><phon>&lt;blk&gt;</phon></lemma>"
        "<lemma><orth>t</orth><phon>T</phon></lemma>",
    )
    lexicon = read_bliss_lexicon(path)
    assert (lexicon.silence, lexicon.blank, lexicon.phonemes) == (None, "<blk>", ("<blk>", "T"))


@pytest.mark.parametrize(
    ("lemma", "message"),
    [
        ("<lemma>\n<orth>at</orth><phon>AA K</phon></lemma>", "line 10: phoneme 'K' isn't in the inventory"),
        ("<lemma>\n<orth>at</orth><phon/></lemma>", "line 10: word 'at' has an empty pronunciation"),
        ("<lemma>\n<orth>a t</orth><phon>T</phon></lemma>", "line 10: orthography 'a t' has several words"),
        (
            "<lemma>\n<orth/><phon>T</phon></lemma>",
            "line 10: a lemma that isn't special has an empty orthography",
        ),
        (
            "<lemma><orth>t</orth><phon>T</phon></lemma>\n<lemma><orth>t</orth><phon>T</phon></lemma>",
            "line 10: word 't' has the pronunciation 'T' already",
        ),
        ("<lemma>\n<orth>t</orth><phon score='x'>T</phon></lemma>", "line 10: 'x' is not a number"),
        ("<lemma>\n<orth>t</orth><phon score='inf'>T</phon></lemma>", "line 10: score is inf"),
        ("<lemma>\n<orth>t</orth><phon weight='-1'>T</phon></lemma>", "line 10: weight is -1"),
        (f"\n{SILENCE}", "line 10: a second lemma of silence"),
        ("\n<lemma special='blank'><phon>T AA</phon></lemma>", "line 10: the lemma of blank must have one"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, lemma: str, message: str) -> None:
    path = write(tmp_path / "lexicon.xml", INVENTORY + SILENCE + lemma)
    with pytest.raises(LexiconError, match=message) as caught:
        read_bliss_lexicon(path)
    assert caught.value.line == 10


def test_entities_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.xml"
    path.write_text(
        '<?xml version="1.0"?>\n<!DOCTYPE lexicon [\n<!ENTITY a "aaaa">\n<!ENTITY b "&a;&a;&a;">]>\n'
        "<lexicon>&b;</lexicon>"
    )
    with pytest.raises(LexiconError, match="line 3: declares the entity 'a'; entities are refused"):
        read_bliss_lexicon(path)
    path.write_text('<!DOCTYPE lexicon [<!ENTITY a SYSTEM "file:///etc/hostname">]><lexicon>&a;</lexicon>')
    with pytest.raises(LexiconError, match="declares the entity 'a'"):
        read_bliss_lexicon(path)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.xml"
    for content, message in (
        ("<lexicon><lemma></lexicon>", "isn't well-formed XML"),
        ("<corpus/>", "expected <lexicon>, found <corpus>"),
        ("", "isn't well-formed XML"),
        ("<lexicon/>", "holds no word"),
    ):
        path.write_text(content)
        with pytest.raises(LexiconError, match=message):
            read_bliss_lexicon(path)
    with pytest.raises(LexiconError, match="can't be read"):
        read_bliss_lexicon(tmp_path / "missing.xml")
    write(
        path,
        "<phoneme-inventory><phoneme><symbol>A</symbol></phoneme><phoneme><symbol>A</symbol></phoneme></phoneme-inventory>",
    )
    with pytest.raises(LexiconError, match="phoneme 'A' stands twice"):
        read_bliss_lexicon(path)
