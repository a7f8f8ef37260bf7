"""PocketSphinx as an engine, with speech of a synthesizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recipes.digits.speech import synthesizer
from seqtrain.data import Utterance, write_audio, write_manifest
from seqtrain.errors import ConfigError, EngineError, OutOfVocabularyError, SkippedError, UnknownSegmentError
from seqtrain.lexicon import AutomatonBuilder, HmmTopology, Lexicon
from sprint_bridge.backends.base import Capability
from sprint_bridge.backends.pocketsphinx import PocketsphinxBackendConfig, load_pocketsphinx_backend
from sprint_bridge.backends.pocketsphinx_engine import PocketsphinxEngine, StateAligner
from sprint_bridge.workers.settings import WorkerSettings
from tests.bridge.stand_in import QUICK
from tests.bridge.test_sprint_backend import kinds
from tests.bridge.toy_pool import within

WORDS = ("seven", "number")
SAID = ("S", "EH", "V", "AH", "N", "N", "AH", "M", "B", "ER")
PRONUNCIATIONS = "number N AH M B ER\nzyzzyx Z IH K S\n"


def corpus(folder: Path) -> tuple[Path, dict[str, tuple[float, float]]]:
    """A manifest of an utterance, and where its words were put, in seconds."""
    speak = synthesizer()
    silence = np.zeros(speak.sample_rate // 4, dtype=np.float32)
    pieces, spoken = [silence], {}
    for word in WORDS:
        said = speak(word, voice="en-us+f2", rate=140)
        loud = np.flatnonzero(np.abs(said) > 0.02) + sum(map(len, pieces))
        spoken[word] = (loud[0] / speak.sample_rate, loud[-1] / speak.sample_rate)
        pieces += [said, silence]
    # Digital silence is nothing the model has ever heard.
    noise = np.random.default_rng(0).normal(scale=1e-3, size=sum(map(len, pieces))).astype(np.float32)
    samples = np.concatenate(pieces) + noise
    write_audio(folder / "audio" / "a.wav", samples, speak.sample_rate)
    write_audio(folder / "audio" / "short.wav", samples[: speak.sample_rate // 10], speak.sample_rate)
    duration = len(samples) / speak.sample_rate
    names = {"a": "seven number", "b": "seven number", "empty": "", "oov": "seven xyxxy zyzzyx qqq"}
    utterances = [Utterance(name, folder / "audio" / "a.wav", text, duration) for name, text in names.items()]
    utterances.append(Utterance("short", folder / "audio" / "short.wav", "seven number", 0.1))
    utterances.append(Utterance("lost", folder / "audio" / "nothing.wav", "seven", 0.1))
    write_manifest(folder / "manifest.jsonl", utterances)
    (folder / "extra.txt").write_text(PRONUNCIATIONS)
    return folder / "manifest.jsonl", spoken


def test_alignments(tmp_path: Path) -> None:
    manifest, spoken = corpus(tmp_path)
    config = PocketsphinxBackendConfig(
        manifest,
        pronunciations=tmp_path / "extra.txt",
        frame_shift=0.03,
        states_per_phone=3,
        workers=WorkerSettings(**{**QUICK, "start_timeout": 60.0}),
    )
    backend = within(60, lambda: load_pocketsphinx_backend(config))
    try:
        assert backend.name == "pocketsphinx"
        assert backend.capabilities == {Capability.ALIGNMENTS}
        names = ["a", "empty", "oov", "short", "lost", "nix", "b"]
        answer = backend.alignments(names)
        assert kinds(answer.errors) == [
            None, None, OutOfVocabularyError, SkippedError, EngineError, UnknownSegmentError, None,
        ]  # fmt: skip
        assert isinstance(answer.errors[2], OutOfVocabularyError)
        assert answer.errors[2].words == ("xyxxy", "qqq")
        assert "PocketSphinx finds no path for short (0.10 s): 'seven number'" in str(answer.errors[3])
        assert "nothing.wav (utterance lost): the file doesn't exist" in str(answer.errors[4])
        # What came before doesn't matter.
        np.testing.assert_array_equal(answer.labels[0], answer.labels[6])
        labels = [backend.inventory.labels[label] for label in answer.labels[0]]
        assert len(labels) == len(answer.labels[1])
        assert not answer.labels[1].any()

        phones = [label.partition(".")[0] for label in labels]
        said = [phone for index, phone in enumerate(phones) if index == 0 or phones[index - 1] != phone]
        assert [phone for phone in said if phone != "[SILENCE]"] == list(SAID)
        starts = [t for t in range(1, len(phones)) if phones[t - 1] == "[SILENCE]" != phones[t]]
        for start, word in zip(starts, WORDS, strict=True):
            assert start * 0.03 == pytest.approx(spoken[word][0], abs=0.15)
    finally:
        within(5, backend.close)


def test_labels_are_those_of_an_hmm_over_the_phones_of_cmudict() -> None:
    for states in (1, 3):
        engine = PocketsphinxEngine(
            StateAligner(), {}, stride=1, states_per_phone=states, silence="[SILENCE]", digest=""
        )
        phones = sorted({label.partition(".")[0] for label in engine.inventory.labels[1:]})
        assert len(phones) == 39
        lexicon = Lexicon({"all": [phones]})
        builder = AutomatonBuilder(lexicon, HmmTopology(states_per_phone=states))
        assert engine.inventory == builder.inventory


def test_a_frame_has_the_label_of_the_feature_frame_that_is_kept() -> None:
    def labels(stride: int, states_per_phone: int) -> list[int]:
        engine = PocketsphinxEngine(
            StateAligner(),
            {},
            stride=stride,
            states_per_phone=states_per_phone,
            silence="[SILENCE]",
            digest="",
        )
        states = [("SIL", 0, 0, 1), ("AA", 0, 1, 2), ("AA", 1, 3, 1), ("AA", 2, 4, 2), ("+NSN+", 0, 6, 1)]
        return engine._labels(states, duration=0.104).tolist()

    assert labels(1, 3) == [0, 1, 1, 2, 3, 3, 0, 0, 0, 0]
    assert labels(1, 1) == [0, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert labels(3, 3) == [0, 2, 0, 0]


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    for options, message in (
        ({"frame_shift": 0.015}, r"frame_shift must be a multiple of 0\.01 s, found 0\.015"),
        ({"frame_shift": 0.0}, r"frame_shift must be a multiple of 0\.01 s"),
        ({"states_per_phone": 2}, "states_per_phone must be 1 or 3, found 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            PocketsphinxBackendConfig(tmp_path, **options)  # type: ignore[arg-type]
