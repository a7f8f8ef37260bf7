"""Where RASR's goldens are, and small set-ups written for one test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from seqtrain.lexicon.rasr import RasrAutomatonBuilder

GOLDENS = Path(__file__).parents[2] / "goldens" / "rasr"
VARIANTS = sorted(path.stem for path in (GOLDENS / "fsa").glob("*.npz"))
EXPORTER = "neural-network-trainer.alignment-fsa-exporter"
ACOUSTICS = f"{EXPORTER}.model-combination.acoustic-model"
PARSER = f"{EXPORTER}.allophone-state-graph-builder.orthographic-parser"
SILENCE = '<lemma special="silence"><orth>[SILENCE]</orth><orth/><phon>[SILENCE]</phon></lemma>'
BLANK = '<lemma special="blank"><orth>[BLANK]</orth><phon>&lt;blk&gt;</phon></lemma>'

Words = Mapping[str, Sequence[str]]


def golden_builder(variant: str) -> RasrAutomatonBuilder:
    """The builder of a golden variant; its lexicon may lack a word that RASR has skipped."""
    return RasrAutomatonBuilder.from_config(GOLDENS / "setup" / f"{variant}.config", unknown_words="skip")


def lexicon_text(words: Words, *, special: str = SILENCE, phonemes: Sequence[str] | None = None) -> str:
    """A Bliss lexicon; those of [SILENCE] and <blk> whose lemma is in `special` are first in the inventory."""
    used = sorted({phoneme for variants in words.values() for said in variants for phoneme in said.split()})
    specials = [s for s in ("[SILENCE]", "<blk>") if f"<phon>{escape(s)}</phon>" in special]
    inventory = [s for s in specials if s not in used] + list(phonemes or used)
    entries = "".join(
        f"<phoneme><symbol>{escape(phoneme)}</symbol>"
        + ("<variation>none</variation>" if phoneme[0] in "[<" else "")
        + "</phoneme>\n"
        for phoneme in inventory
    )
    lemmas = "".join(
        f"<lemma><orth>{escape(word)}</orth>{''.join(f'<phon>{escape(said)}</phon>' for said in variants)}</lemma>\n"
        for word, variants in words.items()
    )
    return f"<lexicon><phoneme-inventory>\n{entries}</phoneme-inventory>\n{special}\n{lemmas}</lexicon>\n"


def corpus_text(segments: Mapping[str, str]) -> str:
    """A Bliss corpus `c` with one recording `r`."""
    body = "".join(
        f'<segment name="{name}" start="0" end="1"><orth> {escape(text)} </orth></segment>\n'
        for name, text in segments.items()
    )
    return f'<corpus name="c"><recording name="r" audio="r.wav">\n{body}</recording></corpus>\n'


def write_setup(
    folder: Path,
    *lines: str,
    lexicon: str,
    segments: Mapping[str, str] | None = None,
    base: str = "mono3",
) -> Path:
    """A set-up like a golden variant's, with a lexicon and a corpus of its own and further lines; its configuration."""
    golden = (GOLDENS / "setup" / f"{base}.config").read_text()
    config = folder / "rasr.config"
    config.write_text(
        "\n".join(
            (
                golden,
                "[]",
                "neural-network-trainer.corpus.file = corpus.xml",
                f"{EXPORTER}.model-combination.lexicon.file = lexicon.xml",
                *lines,
            )
        )
    )
    (folder / "lexicon.xml").write_text(lexicon)
    (folder / "corpus.xml").write_text(corpus_text(segments or {"s": ""}))
    return config
