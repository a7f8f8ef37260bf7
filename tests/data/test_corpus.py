from __future__ import annotations

from pathlib import Path

import pytest

from seqtrain.data import Corpus, Utterance, read_corpus, write_corpus
from seqtrain.errors import DataError


def utterances(folder: Path, *names: str) -> tuple[Utterance, ...]:
    return tuple(Utterance(name, folder / f"{name}.wav", "press one", 1.0, "s") for name in names)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    corpus = Corpus(
        folder=tmp_path,
        title="Prompts",
        note="one speaker",
        train=utterances(tmp_path, "a", "b"),
        heldout={"std": utterances(tmp_path, "c", "d"), "novel": utterances(tmp_path, "d", "e")},
        left_out={"f": "not speech"},
        settings={"hmm.prior_scale": 0.8},
    )
    write_corpus(corpus)
    assert read_corpus(tmp_path) == corpus
    assert [u.id for u in corpus.utterances] == ["a", "b", "c", "d", "e"]


def test_held_out_means_held_out(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, "", "", utterances(tmp_path, "a"), {"std": utterances(tmp_path, "a")})
    with pytest.raises(
        DataError, match="'a' of the held-out set 'std' is in the training set, too"
    ) as caught:
        write_corpus(corpus)
    assert caught.value.utterance == "a"


def test_no_corpus_and_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no prepared corpus; run the stage 'prepare' first"):
        read_corpus(tmp_path)
    (tmp_path / "corpus.json").write_text('{"title": "x"}')
    with pytest.raises(DataError, match=r"description .*corpus\.json is broken"):
        read_corpus(tmp_path)
