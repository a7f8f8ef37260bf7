"""`seqtrain align` with RASR's caches: written from scores, and read."""

from __future__ import annotations

import argparse
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from seqtrain.align.sprint_cache import (
    Allophones,
    columns_of,
    encode_alignment,
    frame_labels,
    from_soft_labels,
    open_archive,
    read_alignment,
    write_alignments,
)
from seqtrain.cli import align, main
from seqtrain.errors import ArgumentError, DataError
from seqtrain.lexicon import AutomatonBuilder, HmmTopology, read_bliss_lexicon

GOLDENS = Path(__file__).parents[1] / "goldens" / "rasr"
LEXICON = GOLDENS / "setup" / "lexicon.xml"
ALLOPHONES = GOLDENS / "allophones" / "mono3.txt"
CACHES = GOLDENS / "align"
BUILDER = AutomatonBuilder(read_bliss_lexicon(LEXICON), HmmTopology())
TEXT = """\
toy/rec1/seg1 one two
toy/rec1/seg2 oh
toy/rec2/seg1 dot see sees
toy/rec2/seg2 bob bob
toy/rec3/seg1 ss tea [NOISE] eat
toy/rec3/seg2 ten dot nab one two oh see
"""


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    align.add_parser(parser.add_subparsers())
    return align.run(parser.parse_args(["align", *map(str, arguments)]))


@pytest.fixture
def known(tmp_path: Path) -> list[str | Path]:
    """Options for the words of the goldens."""
    (tmp_path / "text").write_text(TEXT)
    files = ["--lexicon", LEXICON, "--text", tmp_path / "text", "--states-per-phone", "3"]
    return [*files, "--frame-shift", "0.01", "--out", tmp_path / "out"]


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """Scores that leave no doubt, along RASR's alignments."""
    path = tmp_path / "scores.npz"
    with open_archive(CACHES / "mono3.viterbi_emission.cache") as archive, zipfile.ZipFile(path, "w") as file:
        for name in archive:
            labels = frame_labels(read_alignment(archive, name), lambda label: label)
            with file.open(f"{name}.npy", "w") as array:
                np.save(array, 20 * np.eye(34, dtype=np.float32)[labels] - 20)
    return path


def test_scores_become_rasrs_caches(tmp_path: Path, scores: Path, known: list[str | Path]) -> None:
    """Byte for byte what RASR wrote, with emissions and with allophone states."""
    written = tmp_path / "out" / "alignments.cache"
    assert run(scores, *known, "--to", "sprint-cache") == 0
    assert written.read_bytes() == (CACHES / "mono3.viterbi_emission.cache").read_bytes()
    assert run(scores, *known, "--to", "sprint-cache", "--allophones", ALLOPHONES) == 0
    assert written.read_bytes() == (CACHES / "mono3.viterbi.cache").read_bytes()
    assert list((tmp_path / "out").iterdir()) == [written]


def test_there_and_back(
    tmp_path: Path, scores: Path, known: list[str | Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(scores, *known, "--to", "jsonl", "ctm", "phones.ctm", "sprint-cache") == 0
    direct = {path.name: path.read_text() for path in (tmp_path / "out").glob("*[lm]")}
    assert sorted(direct) == ["alignments.jsonl", "phones.ctm", "words.ctm"]
    known[known.index("--out") + 1] = tmp_path / "back"
    cache = tmp_path / "out" / "alignments.cache"
    capsys.readouterr()
    assert run("--from", "sprint-cache", cache, *known, "--to", "jsonl", "ctm", "phones.ctm", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "utterances": 6,
        "words": 19,
        "files": [str(tmp_path / "back" / name) for name in ("alignments.jsonl", "words.ctm", "phones.ctm")],
    }
    for name in ("words.ctm", "phones.ctm"):
        assert (tmp_path / "back" / name).read_text() == direct[name]
    for line, again in zip(
        direct["alignments.jsonl"].splitlines(),
        (tmp_path / "back" / "alignments.jsonl").read_text().splitlines(),
        strict=True,
    ):
        expected = json.loads(line)
        for segment in (expected, *expected["words"], *expected["phones"]):
            segment["score"] = None  # which a cache doesn't hold
        assert json.loads(again) == expected


def test_all_of_rasrs_caches_say_the_same_words(tmp_path: Path, known: list[str | Path]) -> None:
    written = {}
    for name, options in (
        ("viterbi_emission", []),
        ("viterbi", ["--allophones", ALLOPHONES]),
        ("viterbi_gz", ["--allophones", ALLOPHONES]),
        ("bw", ["--allophones", ALLOPHONES]),
    ):
        assert run(CACHES / f"mono3.{name}.cache", *known, *options, "--format", "ctm") == 0
        written[name] = (tmp_path / "out" / "words.ctm").read_text()
    assert written["viterbi"] == written["viterbi_gz"] == written["viterbi_emission"]
    assert written["viterbi"].startswith("toy/rec1/seg1 1 0.010 0.180 one\ntoy/rec1/seg1 1 0.190 0.160 two\n")
    # Baum-Welch says where it isn't sure; the words are the same, and begin and end nearly there.
    pairs = [
        (line.split(), other.split())
        for line, other in zip(written["viterbi"].splitlines(), written["bw"].splitlines(), strict=True)
    ]
    assert all(line[4] == other[4] for line, other in pairs)
    assert np.median([abs(float(line[2]) - float(other[2])) for line, other in pairs]) <= 0.01


def test_a_cache_becomes_another_kind(tmp_path: Path, known: list[str | Path]) -> None:
    cache = CACHES / "mono3.viterbi_emission.cache"
    assert run(cache, *known, "--allophones", ALLOPHONES, "--to", "sprint-cache") == 0
    assert (tmp_path / "out" / "alignments.cache").read_bytes() == (
        CACHES / "mono3.viterbi.cache"
    ).read_bytes()


def test_phones_without_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        CACHES / "mono3.viterbi.cache",
        "--out",
        tmp_path,
        "--frame-shift",
        "0.01",
        "--allophones",
        ALLOPHONES,
    ]
    assert run(*options) == 0
    assert capsys.readouterr().out == f"6 utterances, 0 words: {tmp_path}\n"
    lines = (tmp_path / "phones.ctm").read_text().splitlines()
    assert lines[:4] == [
        "toy/rec1/seg1 1 0.000 0.010 [SILENCE]",
        "toy/rec1/seg1 1 0.010 0.070 B",
        "toy/rec1/seg1 1 0.080 0.030 AA",
        "toy/rec1/seg1 1 0.110 0.080 N",
    ]
    assert 'text = "AA"' in (tmp_path / "textgrid" / "toy" / "rec1" / "seg1.TextGrid").read_text()
    assert not (tmp_path / "words.ctm").exists()
    assert run(*options, "--to", "jsonl") == 0
    record = json.loads((tmp_path / "alignments.jsonl").read_text().splitlines()[1])
    assert record["words"] == []
    assert [phone["symbol"] for phone in record["phones"]] == ["[SILENCE]", "OW", "[SILENCE]"]
    for name in ("ctm", "sprint-cache"):
        with pytest.raises(
            ArgumentError, match=f"{name} needs the words: give --lexicon and --text, or ask for"
        ):
            run(*options, "--to", name)


def test_bundles_folders_and_recovery(
    tmp_path: Path, known: list[str | Path], capsys: pytest.CaptureFixture[str]
) -> None:
    content = (CACHES / "mono3.viterbi_emission.cache").read_bytes()
    (tmp_path / "a.cache").write_bytes(content[:1300])
    (tmp_path / "all.bundle").write_text("a.cache\n")
    with pytest.raises(DataError, match="the table at its end is broken"):
        run(tmp_path / "all.bundle", *known)
    assert run(tmp_path / "all.bundle", *known, "--recover") == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("5 utterances, 12 words: ")
    assert "all.bundle: left out: " in printed.err
    assert "a.cache: the 222 bytes from 1078 on are no whole entry" in printed.err
    folder = tmp_path / "folder" / "toy" / "rec1"
    folder.mkdir(parents=True)
    with open_archive(CACHES / "mono3.viterbi_emission.cache") as archive:
        (folder / "seg1").write_bytes(archive.read("toy/rec1/seg1"))
    assert run(tmp_path / "folder", *known) == 0
    assert capsys.readouterr().out.startswith("1 utterances, 2 words: ")


def test_what_is_wrong_is_named(tmp_path: Path, scores: Path, known: list[str | Path]) -> None:
    emissions, states = CACHES / "mono3.viterbi_emission.cache", CACHES / "mono3.viterbi.cache"
    with pytest.raises(ArgumentError, match="reading RASR's alignments needs --frame-shift"):
        run(emissions, "--out", tmp_path)
    with pytest.raises(ArgumentError, match="the words of RASR's alignments needs --text"):
        run(emissions, "--out", tmp_path, "--frame-shift", "0.01", "--lexicon", LEXICON)
    with pytest.raises(ArgumentError, match="mean nothing without allophones") as caught:
        run(states, *known)
    assert caught.value.argument == "allophones"
    with pytest.raises(DataError, match="entry 'toy/rec1/seg1': has emissions, which don't say"):
        run(emissions, "--out", tmp_path, "--frame-shift", "0.01")
    with pytest.raises(
        ArgumentError, match=r"nor RASR's alignments \(\.cache, \.bundle, a folder\); --from says"
    ):
        run(tmp_path / "alignments", *known)
    with pytest.raises(DataError, match="alignments: can't be read: "):
        run("--from", "sprint-cache", tmp_path / "alignments", *known)
    with pytest.raises(ArgumentError, match="a recipe's alignments aren't written as sprint-cache"):
        run(tmp_path / "recipe.toml", *known, "--to", "sprint-cache")
    write_alignments(tmp_path / "empty.cache", {})
    with pytest.raises(DataError, match="holds no alignment"):
        run(tmp_path / "empty.cache", *known)
    (tmp_path / "text").write_text(TEXT.replace("dot see sees", "dot see see"))
    with pytest.raises(
        DataError, match=r"entry 'toy/rec2/seg1': its 60 frames are no path through the text's"
    ) as e:
        run(emissions, *known)
    assert (e.value.path, e.value.utterance) == (str(emissions), "toy/rec2/seg1")
    (tmp_path / "text").write_text(TEXT.partition("\n")[0])
    with pytest.raises(
        DataError, match=r"lacks 5 of the 6 utterances in .*emission\.cache, the first is 'toy/rec1/se"
    ):
        run(emissions, *known)
    (tmp_path / "text").write_text(TEXT)
    known[known.index("--states-per-phone") + 1] = "1"
    with pytest.raises(DataError, match=r"entry 'toy/rec1/seg1': label 22 is no column: there are 12"):
        run(emissions, *known)


def test_weighted_caches_of_ours(tmp_path: Path, known: list[str | Path]) -> None:
    """Soft labels that leave no doubt are the same path."""
    soft = {}
    with open_archive(CACHES / "mono3.viterbi.cache") as archive:
        for name in archive:
            alignment = read_alignment(archive, name)
            columns = frame_labels(
                alignment, columns_of(alignment, BUILDER.inventory, Allophones.read(ALLOPHONES))
            )
            soft[name] = from_soft_labels(0.9 * np.eye(34)[columns] + 0.1 / 34)
    write_alignments(tmp_path / "soft.cache", soft, compress=True)
    assert run(tmp_path / "soft.cache", *known, "--to", "sprint-cache") == 0
    written = tmp_path / "out" / "alignments.cache"
    assert written.read_bytes() == (CACHES / "mono3.viterbi_emission.cache").read_bytes()
    with pytest.raises(DataError, match="has emissions"):
        run(tmp_path / "soft.cache", "--out", tmp_path, "--frame-shift", "0.01")


def test_the_command_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    payload = encode_alignment(from_soft_labels(np.ones((1, 1)))).replace(
        struct.pack("<I", 0x80000002), b"\3\0\0\x80"
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(payload)
    assert main(["align", str(folder), "--out", str(tmp_path), "--frame-shift", "0.01"]) == 2
    assert capsys.readouterr().err == (
        f"seqtrain: archive {folder}, entry 'a': is weighted in version 3; known are 1 and 2\n"
    )
