"""The Asterisk prompts as a corpus: one speaker, 24 minutes of telephone prompts with their text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recipes.asterisk.packages import PackageSource, apt_available
from recipes.asterisk.splits import novel_ids, standard_ids
from recipes.asterisk.text import read_prompts, spoken
from recipes.digits.corpus import prepare as prepare_digits
from recipes.pronunciations import cmudict_pronunciations
from seqtrain.data import Corpus, Utterance, audio_duration, write_corpus
from seqtrain.errors import AudioError, DataError
from seqtrain.lexicon import Lexicon, read_lexicon, write_lexicon
from seqtrain.training.progress import Console
from seqtrain.training.settings import from_mapping

__all__ = ["Options", "prepare"]

_PACKAGES = ["asterisk-core-sounds-en", "asterisk-core-sounds-en-wav"]
_PROMPTS = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
_SOUNDS = "usr/share/asterisk/sounds"
_HAND_LEXICON = Path(__file__).with_name("lexicon.txt")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the preparation.

    Args:
        min_utterances: fewest prompts with sound and text that make the corpus the one it should be.
        without_apt: options of the synthetic digits that stand in where this machine has no apt.
        without_apt_settings: what these need other values of than the configuration's, by dotted name.
    """

    min_utterances: int = 500
    without_apt: dict[str, Any]
    without_apt_settings: dict[str, Any] = field(default_factory=dict)


def prepare(folder: Path, options: Mapping[str, Any], console: Console) -> Corpus:
    """Fetches the prompts' packages, writes manifests and lexicon into `folder`.

    Raises:
        DataError: the packages can't be fetched, or don't hold what they should.
        ConfigError: unknown options.
    """
    settings = from_mapping(Options, options, prefix="corpus_options.")
    packages = PackageSource(folder / "packages")
    if not apt_available() and not packages.complete(_PACKAGES):
        console.say(
            "This machine has no apt, so the recordings can't be fetched. Synthetic digits stand in for "
            "them: the same recipe runs, its figures say nothing about real speech."
        )
        digits = prepare_digits(folder, settings.without_apt, console)
        corpus = replace(digits, settings=settings.without_apt_settings)
        write_corpus(corpus)
        return corpus
    console.say(f"fetching {' and '.join(_PACKAGES)}, or taking them from {packages.directory}")
    root = packages.unpack(_PACKAGES)

    sounds = _sounds_folder(root / _SOUNDS)
    prompts = {
        name: spoken(text)
        for name, text in read_prompts(root / _PROMPTS).items()
        if (sounds / f"{name}.wav").is_file()
    }
    lexicon = _lexicon()
    utterances: dict[str, Utterance] = {}
    left_out: dict[str, str] = {}
    for name, text in prompts.items():
        audio = sounds / f"{name}.wav"
        missing = lexicon.missing_words([text])
        if not text:
            left_out[name] = "not speech"
        elif missing:
            left_out[name] = f"not in the lexicon: {', '.join(missing)}"
        else:
            try:
                duration = audio_duration(audio, utterance=name)
            except AudioError as error:
                left_out[name] = str(error)
            else:
                utterances[name] = Utterance(name, audio, text, duration, speaker="en-us-f")
    if len(utterances) < settings.min_utterances:
        raise DataError(
            f"only {len(utterances)} prompts in {root} have sound and a text that the lexicon covers, at "
            f"least {settings.min_utterances} were expected; the packages aren't laid out as this recipe knows",
            path=str(root),
        )
    for name, reason in left_out.items():
        if reason != "not speech":
            console.say(f"left out: {name}: {reason}")

    texts = {name: utterance.text for name, utterance in utterances.items()}
    heldout = {"std": standard_ids(texts), "novel": novel_ids(texts)}
    words = {word: lexicon[word] for text in texts.values() for word in text.split()}
    corpus = Corpus(
        folder=folder,
        title="Asterisk prompts, US English, 8 kHz",
        note="one speaker",
        train=tuple(u for name, u in utterances.items() if not any(name in ids for ids in heldout.values())),
        heldout={
            part: tuple(u for name, u in utterances.items() if name in ids) for part, ids in heldout.items()
        },
        left_out=left_out,
    )
    write_lexicon(corpus.lexicon, Lexicon(dict(sorted(words.items()))))
    write_corpus(corpus)
    return corpus


def _lexicon() -> Lexicon:
    """cmudict's first pronunciations, the hand lexicon's where it has the word."""
    hand = {
        word: [variant.phonemes for variant in variants]
        for word, variants in read_lexicon(_HAND_LEXICON).items()
    }
    return Lexicon({**cmudict_pronunciations(), **hand})


def _sounds_folder(folder: Path) -> Path:
    found = sorted(path.parent for path in folder.glob("*/hello-world.wav"))
    if len(found) != 1:
        raise DataError(f"{len(found)} folders of prompts in {folder}, one was expected", path=str(folder))
    return found[0]
