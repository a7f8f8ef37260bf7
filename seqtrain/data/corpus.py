"""What a recipe's preparation leaves behind: manifests, a lexicon, and what there is to say about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqtrain.data.manifest import read_manifest, write_manifest
from seqtrain.data.utterance import Utterance
from seqtrain.errors import DataError
from seqtrain.files import replace_file

__all__ = ["Corpus", "read_corpus", "write_corpus"]

_DESCRIPTION = "corpus.json"


@dataclass(frozen=True)
class Corpus:
    """Utterances to train on, held-out sets by name, and the pronunciations of all their words.

    `note` is what must be said beside any figure (one speaker, synthetic speech); `left_out` gives, for each
    utterance that was dropped, the reason. `settings` are settings of the recipe, by dotted name, of which this corpus
    needs other values than the configuration's: a corpus that stands in for another may. `folder` holds the files,
    among them `lexicon` and `manifest`, which lists the utterances of all sets.
    """

    folder: Path
    title: str
    note: str
    train: tuple[Utterance, ...]
    heldout: Mapping[str, tuple[Utterance, ...]]
    left_out: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lexicon(self) -> Path:
        """The lexicon: plain text, `word  P1 P2 …`."""
        return self.folder / "lexicon.txt"

    @property
    def manifest(self) -> Path:
        """The manifest of all utterances, each once."""
        return self.folder / "all.jsonl"

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """All utterances, each once, though held-out sets may overlap."""
        every = (self.train, *self.heldout.values())
        return tuple({utterance.id: utterance for part in every for utterance in part}.values())


def write_corpus(corpus: Corpus) -> None:
    """Writes a corpus into its folder (the lexicon excepted).

    Raises:
        DataError: a held-out utterance is also in the training set.
    """
    training = {utterance.id for utterance in corpus.train}
    for name, utterances in corpus.heldout.items():
        for utterance in utterances:
            if utterance.id in training:
                raise DataError(
                    f"utterance {utterance.id!r} of the held-out set {name!r} is in the training set, too",
                    utterance=utterance.id,
                )
    write_manifest(corpus.folder / "train.jsonl", corpus.train)
    for name, utterances in corpus.heldout.items():
        write_manifest(corpus.folder / f"heldout-{name}.jsonl", utterances)
    write_manifest(corpus.manifest, corpus.utterances)
    description = {
        "title": corpus.title,
        "note": corpus.note,
        "heldout": list(corpus.heldout),
        "left_out": dict(corpus.left_out),
        "settings": dict(corpus.settings),
    }
    content = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    replace_file(corpus.folder / _DESCRIPTION, content.encode())


def read_corpus(folder: str | Path) -> Corpus:
    """Reads what `write_corpus` wrote.

    Raises:
        DataError: there is no corpus, or a file of it is broken.
    """
    folder = Path(folder)
    path = folder / _DESCRIPTION
    if not path.is_file():
        raise DataError(f"{folder} holds no prepared corpus; run the stage 'prepare' first", path=str(path))
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        title, note = str(description["title"]), str(description["note"])
        names = [str(name) for name in description["heldout"]]
        settings = {str(name): value for name, value in description["settings"].items()}
        left_out = {str(name): str(reason) for name, reason in description["left_out"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"the corpus's description {path} is broken ({error}); run the stage 'prepare' again",
            path=str(path),
        ) from error
    return Corpus(
        folder=folder,
        title=title,
        note=note,
        train=tuple(read_manifest(folder / "train.jsonl")),
        heldout={name: tuple(read_manifest(folder / f"heldout-{name}.jsonl")) for name in names},
        left_out=left_out,
        settings=settings,
    )
