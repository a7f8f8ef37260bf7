"""The prompt list of the Asterisk sound packages: reading it, and writing prompts as they are spoken."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from seqtrain.errors import DataError

__all__ = ["read_prompts", "spoken"]

# fmt: off
_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
_TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
# fmt: on

# Written forms whose spoken form doesn't follow from their characters.
_SPOKEN_FORMS = {
    "28.8": "twenty eight point eight",
    "www.asterisk.org": "www dot asterisk dot org",
    "*": " star ",
    "#": " pound ",
}

# What the speaker doesn't say: stage directions and the glyph a prompt names.
_ASIDE = re.compile(r"\[[^]]*\]|\([^)]*\)|<[^>]*>")
_NUMBER = re.compile(r"\d+")
_OTHER = re.compile(r"[^a-z' ]+")


def spoken(prompt: str) -> str:
    """The words of a prompt as they are spoken: lower case, no punctuation, numbers as words, asides left
    out.

    A prompt that isn't speech (a tone, silence) gives an empty text.
    """
    text = _ASIDE.sub(" ", prompt).lower()
    for written, form in _SPOKEN_FORMS.items():
        text = text.replace(written, form)
    text = _NUMBER.sub(lambda match: f" {_number(match[0])} ", text)
    words = (word.strip("'") for word in _OTHER.sub(" ", text).split())
    return " ".join(word for word in words if word)


def _number(digits: str) -> str:
    """How the prompts say a number: up to 99 and round hundreds as such, everything else digit by digit."""
    value = int(digits)
    if value < 20:
        return _UNITS[value]
    if value < 100:
        return _TENS[value // 10] + (f" {_UNITS[value % 10]}" if value % 10 else "")
    if value < 1000 and value % 100 == 0:
        return f"{_UNITS[value // 100]} hundred"
    return " ".join(_UNITS[int(digit)] for digit in digits)


def read_prompts(path: str | Path) -> dict[str, str]:
    """Prompts by name from a gzipped list of lines `name: text`; lines that start with `;` are comments.

    Raises:
        DataError: the file is missing or broken, or a line has no colon.
    """
    path = Path(path)
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"prompt list {path} can't be read: {error}", path=str(path)) from error
    prompts: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith(";"):
            continue
        name, colon, text = line.partition(":")
        if not colon:
            raise DataError(
                f"prompt list {path}, line {number}: no colon between name and text", path=str(path)
            )
        prompts[name.strip()] = text.strip()
    return prompts
