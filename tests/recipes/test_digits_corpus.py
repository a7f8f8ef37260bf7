from __future__ import annotations

import io
from pathlib import Path

import pytest

from recipes.digits.corpus import prepare
from recipes.digits.speech import synthesizer
from seqtrain.data import read_audio
from seqtrain.errors import ConfigError, DataError
from seqtrain.training.progress import Console

OPTIONS = {"train": 4, "heldout": 2, "sample_rate": 8000, "shortest": 1, "longest": 3}


def test_voices_differ_and_unknown_ones_are_errors() -> None:
    engine = synthesizer()
    assert synthesizer() is engine
    low, high = (engine("seven", voice=voice) for voice in ("en-us+m1", "en-us+f2"))
    assert abs(low).max() > 0.05
    assert len(low) > 0.2 * engine.sample_rate
    assert low.shape != high.shape or (low != high).any()
    for voice in ("en-us+nobody", "xx+m1"):
        with pytest.raises(DataError, match="espeak-ng has no voice '" + voice.replace("+", r"\+")):
            engine("seven", voice=voice)


def test_the_corpus_is_made_once(tmp_path: Path) -> None:
    corpus = prepare(tmp_path, OPTIONS, Console(io.StringIO()))
    assert (len(corpus.train), len(corpus.heldout["unseen"])) == (4, 2)
    assert not {u.speaker.split("+")[1] for u in corpus.train} & {
        u.speaker.split("+")[1] for u in corpus.heldout["unseen"]
    }
    for utterance in corpus.utterances:
        assert 1 <= len(utterance.words) <= 3
        assert read_audio(utterance.audio, sample_rate=8000).duration == utterance.duration
    # The engine never says a thing twice alike, so what is there must be taken.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "audio").iterdir()}
    said = io.StringIO()
    assert prepare(tmp_path, OPTIONS, Console(said)) == corpus
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "audio").iterdir()} == before
    assert "taking the synthetic digits" in said.getvalue()

    texts = [u.text for u in corpus.utterances]
    other = prepare(tmp_path, {**OPTIONS, "seed": 2}, Console(io.StringIO()))
    assert [u.text for u in other.utterances] != texts


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"train": 0}, "corpus_options.train"),
        ({"longest": 1, "shortest": 2}, "corpus_options.longest"),
        ({"sample_rate": "8k"}, "corpus_options.sample_rate"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(tmp_path, options, Console(io.StringIO()))
    assert caught.value.key == key
