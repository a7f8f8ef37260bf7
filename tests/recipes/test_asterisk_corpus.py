"""Fetching packages and preparing the corpus, with an apt and a dpkg of our own on the path."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from recipes.asterisk.corpus import prepare
from recipes.asterisk.packages import PackageSource, apt_available
from seqtrain.data import read_corpus, write_audio
from seqtrain.errors import ConfigError, DataError
from seqtrain.lexicon import read_lexicon
from seqtrain.training.progress import Console

TEXT, SOUND = "asterisk-core-sounds-en", "asterisk-core-sounds-en-wav"
WITHOUT_APT = {"train": 3, "heldout": 2, "shortest": 1, "longest": 2}


class Archive:
    """Packages (tar files here), and the commands apt-cache, apt-get and dpkg that know them and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "bin"
        self.programs.mkdir(parents=True)
        self.log = folder / "log"
        # apt-cache ARGS… show PACKAGE; without lists of its own it knows the packages in `index` only.
        self._program("apt-cache", f'for p; do :; done; case "$*" in *State::Lists*) i=all;; *) i=index;; esac\n'
                      f'cat "{folder}/$i/$p" 2>/dev/null || exit 100')  # fmt: skip
        self._program(
            "apt-get",
            'case "$*" in *update*) exit 0;; esac\n'
            'for p; do :; done; n="${p%%=*}"\n'
            f'[ -e "{folder}/broken" ] && {{ echo "E: no route to host" >&2; exit 100; }}\n'
            f'cp "{folder}/files/$n" "./${{n}}_1_all.deb"',
        )
        self._program("dpkg", 'mkdir -p "$3" && tar -xf "$2" -C "$3"')
        for name in ("index", "all", "files"):
            (folder / name).mkdir()

    def _program(self, name: str, body: str) -> None:
        path = self.programs / name
        path.write_text(f'#!/bin/sh\necho {name} "$@" >> "{self.log}"\n{body}\n')
        path.chmod(0o755)

    def add(self, package: str, files: dict[str, bytes], *, listed: bool = True, digest: str = "") -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        content = buffer.getvalue()
        (self.folder / "files" / package).write_bytes(content)
        digest = digest or hashlib.sha256(content).hexdigest()
        entry = f"Package: {package}\nVersion: 1.6-1\nSize: {len(content)}\nSHA256: {digest}\n"
        for name in ("index", "all") if listed else ("all",):
            (self.folder / name / package).write_text(entry)

    def calls(self) -> list[str]:
        return [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    archive = Archive(tmp_path / "archive")
    monkeypatch.setenv("PATH", f"{archive.programs}:/usr/bin:/bin")
    return archive


def test_packages_are_fetched_checked_and_kept(archive: Archive, tmp_path: Path) -> None:
    archive.add(TEXT, {"usr/x": b"1"})
    archive.add(SOUND, {"usr/y": b"2"})
    source = PackageSource(tmp_path / "packages")
    assert not source.complete([TEXT])
    root = source.unpack([TEXT, SOUND])
    assert (root / "usr/x").read_bytes() + (root / "usr/y").read_bytes() == b"12"
    record = json.loads((tmp_path / "packages" / "packages.json").read_text())
    assert record[TEXT]["version"] == "1.6-1"
    assert (
        record[TEXT]["sha256"] == hashlib.sha256((archive.folder / "files" / TEXT).read_bytes()).hexdigest()
    )

    assert source.complete([TEXT, SOUND])
    before = archive.calls()
    assert PackageSource(tmp_path / "packages").unpack([TEXT, SOUND]) == root
    assert archive.calls() == before


def test_a_damaged_package_is_fetched_again(archive: Archive, tmp_path: Path) -> None:
    archive.add(TEXT, {"usr/x": b"1"})
    source = PackageSource(tmp_path / "packages")
    source.unpack([TEXT])
    (tmp_path / "packages" / f"{TEXT}.deb").write_bytes(b"damaged")
    source.unpack([TEXT])
    assert archive.calls().count("apt-get") == 2


def test_lists_of_our_own_where_the_system_has_none(archive: Archive, tmp_path: Path) -> None:
    archive.add(TEXT, {"usr/x": b"1"}, listed=False)
    assert (PackageSource(tmp_path / "packages").unpack([TEXT]) / "usr/x").exists()
    updates = [line for line in archive.log.read_text().splitlines() if line.endswith(" update")]
    assert len(updates) == 1
    assert f"Dir::State::Lists={(tmp_path / 'packages' / 'apt' / 'lists').resolve()}" in updates[0]


def test_a_wrong_checksum(archive: Archive, tmp_path: Path) -> None:
    archive.add(TEXT, {"usr/x": b"1"}, digest="0" * 64)
    with pytest.raises(DataError, match=r"the file has SHA-256 [0-9a-f]{64}, the package index says 0{64}"):
        PackageSource(tmp_path / "packages").unpack([TEXT])
    assert not (tmp_path / "packages" / "root").exists()


def test_no_such_package_no_network_no_apt(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = PackageSource(tmp_path / "packages")
    with pytest.raises(DataError, match=f"package {TEXT} is in none of the archives"):
        source.unpack([TEXT])
    archive.add(TEXT, {"usr/x": b"1"})
    (archive.folder / "broken").touch()
    with pytest.raises(DataError, match=f"fetching package {TEXT}: apt-get failed: E: no route to host"):
        source.unpack([TEXT])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not apt_available()
    with pytest.raises(
        DataError, match=f"package {TEXT} can't be fetched: this machine has no apt-get, apt-cache, dpkg"
    ):
        source.unpack([TEXT])


def test_a_broken_record_is_named(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "packages.json").write_text("[")
    with pytest.raises(DataError, match=r"record of packages .*packages\.json is broken .*; delete it"):
        PackageSource(tmp_path / "packages").unpack([TEXT])


PROMPTS = {
    "hello-world": "Hello world.",
    "one": "Please press 1 to hear more.",
    "two": "To hear more, press 2.",
    "three": "Something entirely different.",
    "tone": "[a tone]",
    "odd": "Press zyzzyva to leave.",
    "broken": "This file is broken.",
    "silent": "There is no sound of this.",
    "unmuted": "You are now unmuted",
}


def add_prompts(archive: Archive, folder: Path) -> None:
    listing = "".join(f"{name}: {text}\n" for name, text in PROMPTS.items())
    archive.add(TEXT, {f"usr/share/doc/{TEXT}/core-sounds-en.txt.gz": gzip.compress(listing.encode())})
    sounds = {}
    for name in PROMPTS:
        if name == "silent":
            continue
        write_audio(folder / "x.wav", np.zeros(8000, dtype=np.float32), 8000)
        content = b"broken" if name == "broken" else (folder / "x.wav").read_bytes()
        sounds[f"usr/share/asterisk/sounds/en/{name}.wav"] = content
    archive.add(SOUND, sounds)


def test_the_corpus_is_prepared(archive: Archive, tmp_path: Path) -> None:
    add_prompts(archive, tmp_path)
    said = io.StringIO()
    options = {"min_utterances": 4, "without_apt": WITHOUT_APT}
    corpus = prepare(tmp_path / "data", options, Console(said))
    assert read_corpus(tmp_path / "data") == corpus
    assert corpus.note == "one speaker"
    texts = {u.id: u.text for u in corpus.utterances}
    assert set(texts) == {"hello-world", "one", "two", "three", "unmuted"}
    assert texts["one"] == "please press one to hear more"
    # "to hear more" stands twice; two words can't be novel.
    assert {u.id for u in corpus.heldout["novel"]} == {"three", "unmuted"}
    held = {u.id for utterances in corpus.heldout.values() for u in utterances}
    assert {u.id for u in corpus.train} == set(texts) - held

    assert corpus.left_out["tone"] == "not speech"
    assert corpus.left_out["odd"] == "not in the lexicon: zyzzyva"
    assert "broken.wav (utterance broken): can't be decoded" in corpus.left_out["broken"]
    assert "left out: odd: not in the lexicon: zyzzyva" in said.getvalue()
    assert "left out: tone" not in said.getvalue()

    lexicon = read_lexicon(corpus.lexicon)
    assert set(lexicon) == {word for text in texts.values() for word in text.split()}
    assert lexicon["hello"][0].phonemes == ("HH", "AH", "L", "OW")
    assert lexicon["unmuted"][0].phonemes == ("AH", "N", "M", "Y", "UW", "T", "IH", "D")


def test_too_few_prompts(archive: Archive, tmp_path: Path) -> None:
    add_prompts(archive, tmp_path)
    with pytest.raises(
        DataError, match=r"only 5 prompts in .* have sound and a text .* at least 500 were expected"
    ):
        prepare(tmp_path / "data", {"without_apt": WITHOUT_APT}, Console(io.StringIO()))


def test_without_apt_digits_stand_in_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = io.StringIO()
    options = {"without_apt": WITHOUT_APT, "without_apt_settings": {"hmm.prior_scale": 0.8}}
    corpus = prepare(tmp_path / "data", options, Console(said))
    assert corpus.settings == {"hmm.prior_scale": 0.8}
    assert read_corpus(tmp_path / "data") == corpus
    assert "This machine has no apt" in said.getvalue()
    assert "Synthetic digits stand in for them" in said.getvalue()
    assert corpus.note == "synthetic voices (espeak-ng), no human speech"
    assert (len(corpus.train), len(corpus.heldout["unseen"])) == (3, 2)
    with pytest.raises(
        ConfigError, match=r"unknown key corpus_options\.trian; did you mean corpus_options\.train\?"
    ):
        prepare(tmp_path / "data", {"without_apt": {"trian": 3}}, Console(io.StringIO()))
