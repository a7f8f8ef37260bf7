"""Plain-text lexica: one pronunciation a line, `word  P1 P2 …`."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

from seqtrain.errors import LexiconError
from seqtrain.files import replace_file
from seqtrain.lexicon.bliss import read_bliss_lexicon
from seqtrain.lexicon.lexicon import DEFAULT_SILENCE, Lexicon, Pronunciation

__all__ = ["read_lexicon", "write_lexicon"]

_COMMENT = ";;;"


def read_lexicon(
    path: str | Path, *, probabilities: bool = False, silence: str | None = DEFAULT_SILENCE
) -> Lexicon:
    """Reads a lexicon: Bliss XML where the name ends in `.xml` or `.xml.gz`, plain text otherwise (also
    `.gz`).

    In plain text each line is a word and the phonemes of one variant, separated by white space; a further
    line of the same word is a further variant. Empty lines and lines that begin with `;;;` are skipped.

    Args:
        path: the file, UTF-8.
        probabilities: the second column is the probability of the variant, in (0, 1] (Kaldi's
            `lexiconp.txt`). Plain text only.
        silence: name of the silence phoneme, or None. Plain text only: Bliss lexica say it themselves.

    Raises:
        LexiconError: the file can't be read; a line is malformed (the error carries its number, from 1).
    """
    path = Path(path)
    if path.name.endswith((".xml", ".xml.gz")):
        return read_bliss_lexicon(path)
    words: dict[str, list[Pronunciation]] = {}
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        fields = line.split()
        if not fields or line.startswith(_COMMENT):
            continue
        variants = words.setdefault(fields[0], [])
        variant = _variant(fields, path, number, probabilities=probabilities)
        if any(variant.phonemes == other.phonemes for other in variants):
            raise LexiconError(
                f"{path}, line {number}: word {fields[0]!r} has this pronunciation already",
                word=fields[0],
                line=number,
            )
        variants.append(variant)
    if not words:
        raise LexiconError(f"{path} holds no word")
    return Lexicon(words, silence=silence)


def write_lexicon(path: str | Path, lexicon: Lexicon, *, probabilities: bool = False) -> None:
    """Writes a plain-text lexicon (see `read_lexicon`), atomically.

    Raises:
        LexiconError: a variant has a weight other than 0 (probability 1), and `probabilities` isn't set.
    """
    lines = []
    for word, variants in lexicon.items():
        for variant in variants:
            if not probabilities and variant.log_weight != 0.0:
                raise LexiconError(
                    f"word {word!r} has a pronunciation of log weight {variant.log_weight}, which a lexicon "
                    "without probabilities can't hold; pass probabilities=True",
                    word=word,
                )
            weight = [repr(math.exp(variant.log_weight))] if probabilities else []
            lines.append(" ".join([word, *weight, *variant.phonemes]) + "\n")
    replace_file(Path(path), "".join(lines).encode("utf-8"))


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
        return content.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise LexiconError(f"lexicon {path} can't be read: {error}") from error


def _variant(fields: list[str], path: Path, number: int, *, probabilities: bool) -> Pronunciation:
    word = fields[0]
    log_weight = 0.0
    if probabilities:
        try:
            probability = float(fields[1]) if len(fields) > 1 else math.nan
        except ValueError:
            probability = math.nan
        if not 0.0 < probability <= 1.0:
            raise LexiconError(
                f"{path}, line {number}: word {word!r} needs a probability in (0, 1] in the second column, "
                f"found {fields[1] if len(fields) > 1 else 'nothing'!r}",
                word=word,
                line=number,
            )
        log_weight = math.log(probability)
    phonemes = tuple(fields[2 if probabilities else 1 :])
    if not phonemes:
        raise LexiconError(f"{path}, line {number}: word {word!r} has no phonemes", word=word, line=number)
    return Pronunciation(phonemes, log_weight)
