"""A recipe whose words are made of tones: small enough to run whole in a test."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqtrain.data import Corpus, LogMel, Utterance, generator, write_audio, write_corpus
from seqtrain.lexicon import Lexicon, write_lexicon
from seqtrain.training.config import (
    AlignmentConfig,
    CtcConfig,
    HmmConfig,
    LfmmiConfig,
    MbrConfig,
    ModelConfig,
    PhoneModelConfig,
    RecipeConfig,
)
from seqtrain.training.progress import Console
from seqtrain.training.run import RecipeRun

__all__ = ["CONFIG", "prepare", "recipe"]

PHONES = {"A": 400.0, "E": 900.0, "O": 1600.0, "U": 2600.0}
WORDS = {"ae": "A E", "oa": "O A", "eu": "E U", "uo": "U O"}


def say(text: str, random: torch.Generator) -> np.ndarray:
    """Each phone a tone of 120 ms, silence of 60 ms around words, noise."""
    parts = [np.zeros(480)]
    for word in text.split():
        for phone in WORDS[word].split():
            parts.append(0.3 * np.sin(2 * np.pi * PHONES[phone] * np.arange(960) / 8000))
        parts.append(np.zeros(480))
    samples = np.concatenate(parts)
    return (samples + 0.003 * torch.randn(len(samples), generator=random).numpy()).astype(np.float32)


def prepare(folder: Path, options: Mapping[str, Any], console: Console) -> Corpus:
    random = generator(11)
    names = list(WORDS)

    def utterance(name: str) -> Utterance:
        text = " ".join(names[i] for i in torch.randint(len(names), (4,), generator=random).tolist())
        samples = say(text, random)
        write_audio(folder / f"{name}.wav", samples, 8000)
        return Utterance(name, folder / f"{name}.wav", text, len(samples) / 8000, "tones")

    corpus = Corpus(
        folder=folder,
        title="Tones",
        note="no speech at all",
        train=tuple(utterance(f"train-{i}") for i in range(24)),
        heldout={"dev": tuple(utterance(f"dev-{i}") for i in range(4))},
    )
    write_lexicon(corpus.lexicon, Lexicon({word: [phones.split()] for word, phones in WORDS.items()}))
    write_corpus(corpus)
    return corpus


CONFIG = RecipeConfig(
    name="tones",
    corpus="tests.recipes.tones:prepare",
    features=LogMel(sample_rate=8000),
    ctc=CtcConfig(steps=60, warmup=10, evaluate_every=30, checkpoint_every=10),
    hmm=HmmConfig(
        steps=200, warmup=10, evaluate_every=100, checkpoint_every=10, prior_scale=0.8, timeout=20.0
    ),
    lfmmi=LfmmiConfig(steps=30, warmup=5, evaluate_every=15),
    phone_model=PhoneModelConfig(order=2),
    mbr=MbrConfig(steps=20, warmup=5, evaluate_every=10),
    threads=1,
    batch_frames=400,
    model=ModelConfig(width=32, dilations=(1,), dropout=0.1),
    alignment=AlignmentConfig(pocketsphinx=False, shown=2),
)


def recipe(workdir: Path, *, resume: bool = False, stream: io.StringIO | None = None) -> RecipeRun:
    return RecipeRun(
        CONFIG, workdir, prepare=prepare, console=Console(stream or io.StringIO(), every=0.0), resume=resume
    )
