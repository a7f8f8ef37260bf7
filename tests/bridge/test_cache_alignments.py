"""Alignments to serve from RASR's caches."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from seqtrain.align.sprint_cache import from_frame_labels, open_archive, read_alignment, write_alignments
from seqtrain.errors import DataError
from seqtrain.lexicon import AutomatonBuilder, HmmTopology, LabelInventory, read_bliss_lexicon
from sprint_bridge.backends.local import LocalBackend
from sprint_bridge.cache_alignments import CacheAlignments

GOLDENS = Path(__file__).parents[1] / "goldens" / "rasr"
ALLOPHONES = GOLDENS / "allophones" / "mono3.txt"
BUILDER = AutomatonBuilder(read_bliss_lexicon(GOLDENS / "setup" / "lexicon.xml"), HmmTopology())


def served(*names: str, allophones: Path | None = ALLOPHONES) -> CacheAlignments:
    return CacheAlignments(
        [GOLDENS / "align" / f"mono3.{name}.cache" for name in names],
        folders=[GOLDENS],
        inventory=BUILDER.inventory,
        allophones=allophones,
    )


def test_all_kinds_say_the_same() -> None:
    with open_archive(GOLDENS / "align" / "mono3.viterbi_emission.cache") as archive:
        expected = {name: read_alignment(archive, name).labels.tolist() for name in archive}
    digests = set()
    for name in ("viterbi", "viterbi_gz", "viterbi_emission"):
        alignments = served(name)
        assert {segment: labels.tolist() for segment, labels in alignments.items()} == expected
        assert all(labels.dtype == np.int32 for labels in alignments.values())
        assert len(alignments) == 6
        assert "none" not in alignments
        assert alignments.get("none") is None
        digests.add(alignments.digest)
        alignments.close()
    assert len(digests) == 1
    assert len(digests.pop()) == hashlib.sha256().digest_size * 2


def test_a_backend_takes_them() -> None:
    alignments = served("viterbi")
    answer = LocalBackend(BUILDER, alignments).alignments(["toy/rec1/seg2", "none"])
    assert answer.labels[0].tolist() == alignments["toy/rec1/seg2"].tolist()
    assert answer.errors[0] is None
    assert "no alignment among 6" in str(answer.errors[1])
    alignments.close()


def test_other_labels_have_another_digest(tmp_path: Path) -> None:
    digests = set()
    for segments in (
        {"a": [0, 1]},
        {"a": [0, 2]},
        {"b": [0, 1]},
        {"a": [0], "b": [1]},
        {"a": [0, 1], "b": []},
        {},
    ):
        write_alignments(
            tmp_path / "a.cache",
            {name: from_frame_labels(np.array(labels, dtype=np.int32)) for name, labels in segments.items()},
        )
        alignments = CacheAlignments([tmp_path / "a.cache"], folders=[tmp_path], inventory=BUILDER.inventory)
        digests.add(alignments.digest)
        alignments.close()
    assert len(digests) == 6


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"entry 'toy/rec1/seg1': stands in .*viterbi\.cache and in .*viterbi_gz\.cache"
    ):
        served("viterbi", "viterbi_gz")
    with pytest.raises(
        DataError, match=r"lies outside of the folders that archives may come from: .*allowed"
    ):
        CacheAlignments(
            [GOLDENS / "align" / "mono3.viterbi.cache"],
            folders=[tmp_path / "allowed"],
            inventory=BUILDER.inventory,
        )
    with pytest.raises(DataError, match="can't be read"):
        served("viterbi", allophones=tmp_path / "none")
    for name, allophones, message in (
        (
            "viterbi",
            None,
            "mono3.viterbi.cache, entry 'toy/rec1/seg1': the labels are ids .* without allophones",
        ),
        (
            "bw",
            ALLOPHONES,
            "mono3.bw.cache, entry 'toy/rec1/seg1': is weighted, it has no single label for a frame",
        ),
    ):
        alignments = served(name, allophones=allophones)
        with pytest.raises(DataError, match=message) as caught:
            alignments["toy/rec1/seg1"]
        assert caught.value.utterance == "toy/rec1/seg1"
        with pytest.raises(DataError, match=message):
            alignments.digest  # noqa: B018
        alignments.close()
    few = CacheAlignments(
        [GOLDENS / "align" / "mono3.viterbi_emission.cache"],
        folders=[GOLDENS],
        inventory=LabelInventory(("a", "b")),
    )
    with pytest.raises(DataError, match="label 4 is no column: there are 2"):
        few["toy/rec1/seg1"]
    few.close()
