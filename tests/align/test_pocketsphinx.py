from __future__ import annotations

import sys

import numpy as np
import pytest

from seqtrain.align.pocketsphinx import PocketSphinxAligner
from seqtrain.errors import AlignerItemError, LexiconError, MissingDependencyError


@pytest.fixture(scope="module")
def aligner() -> PocketSphinxAligner:
    return PocketSphinxAligner({"asterisk": ["AE", "S"], "zyzzyx": ["Z", "IH", "K", "S"], "qq": ["Q1"]})


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
