from __future__ import annotations

import sys

import numpy as np
import pytest

from recipes.digits.speech import synthesizer
from seqtrain.align.pocketsphinx import PocketSphinxAligner
from seqtrain.errors import AlignerItemError, LexiconError, MissingDependencyError


@pytest.fixture(scope="module")
def aligner() -> PocketSphinxAligner:
    return PocketSphinxAligner({"asterisk": ["AE", "S"], "zyzzyx": ["Z", "IH", "K", "S"], "qq": ["Q1"]})


def test_synthetic_words_are_found_where_they_were_put(aligner: PocketSphinxAligner) -> None:
    speak = synthesizer()
    pieces = [np.zeros(speak.sample_rate // 4, dtype=np.float32)]
    expected = []
    for word in ("seven", "zyzzyx", "number"):
        # The engine itself leaves silence around a word.
        said = speak("zicks" if word == "zyzzyx" else word, voice="en-us+f2", rate=140)
        loud = np.flatnonzero(np.abs(said) > 0.02)
        before = sum(map(len, pieces))
        expected.append(
            (word, (before + loud[0]) / speak.sample_rate, (before + loud[-1]) / speak.sample_rate)
        )
        pieces += [said, np.zeros(speak.sample_rate // 4, dtype=np.float32)]
    # Digital silence is nothing the model has ever heard.
    noise = np.random.default_rng(0).normal(scale=1e-3, size=sum(map(len, pieces))).astype(np.float32)
    found = aligner.align(np.concatenate(pieces) + noise, speak.sample_rate, "seven zyzzyx number")
    assert [segment.symbol for segment in found] == [word for word, _, _ in expected]
    for segment, (_, start, end) in zip(found, expected, strict=True):
        assert segment.start_s == pytest.approx(start, abs=0.15)
        assert segment.end_s == pytest.approx(end, abs=0.15)


def test_words_without_pronunciation_are_named(aligner: PocketSphinxAligner) -> None:
    samples = np.zeros(8000, dtype=np.float32)
    with pytest.raises(LexiconError, match=r"neither PocketSphinx' dictionary nor .* have 'xyxxy'") as caught:
        aligner.align(samples, 8000, "press xyxxy")
    assert caught.value.word == "xyxxy"
    with pytest.raises(LexiconError, match=r"refuses the pronunciation 'Q1' of 'qq'"):
        aligner.align(samples, 8000, "qq")


def test_a_recording_too_short_for_its_words(aligner: PocketSphinxAligner) -> None:
    with pytest.raises(
        AlignerItemError, match=r"no path for menu/1 \(0\.05 s\): 'press one zyzzyx'"
    ) as caught:
        aligner.align(np.zeros(400, dtype=np.float32), 8000, "press one zyzzyx", utterance="menu/1")
    assert caught.value.segment == "menu/1"


def test_no_words(aligner: PocketSphinxAligner) -> None:
    assert aligner.align(np.zeros(400, dtype=np.float32), 8000, "  ") == ()


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(MissingDependencyError, match=r"pocketsphinx.*seqtrain\[recipes\]"):
        PocketSphinxAligner()
