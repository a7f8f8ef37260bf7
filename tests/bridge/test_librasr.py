"""RASR's Python module as an engine; a stand-in for it, on the path of the worker."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from seqtrain.errors import EngineError, OutOfVocabularyError, UnknownSegmentError
from sprint_bridge.backends.base import Capability, Orthography, Segment
from sprint_bridge.backends.librasr import LibrasrBackendConfig, LibrasrEngine, load_librasr_backend
from sprint_bridge.rasr.orthography import Vocabulary
from sprint_bridge.workers.errors import EngineMissingError, EngineStartError
from sprint_bridge.workers.settings import WorkerSettings
from tests.bridge.stand_in import AUTOMATA, LEXICON, QUICK, inventory, orthographies
from tests.bridge.test_sprint_backend import golden, kinds
from tests.bridge.toy_pool import within

MODULE = """
import json
import numpy

class Configuration:
    def __init__(self):
        self.values = {}

    def set_from_file(self, path):
        with open(path) as file:
            self.values.update(json.load(file))

    def set(self, name, value):
        self.values[name] = value

class AllophoneStateFsaBuilder:
    def __init__(self, configuration):
        if "corpus" not in configuration.values:
            raise RuntimeError("corpus file isn't given")
        self.corpus = configuration.values["corpus"]
        self.arrays = dict(numpy.load(configuration.values["automata"]))

    def get_orthography_by_segment_name(self, name):
        if name not in self.corpus:
            raise ValueError("no segment " + name)
        return "".join(word + " " for word in self.corpus[name].split())

    def build_by_orthography(self, text):
        assert text == "".join(word + " " for word in text.split())
        for name, words in self.corpus.items():
            if words.split() == text.split():
                return self.build_by_segment_name(name)
        raise ValueError("empty")

    def build_by_segment_name(self, name):
        edges, weights = self.arrays[name + "|edges"], self.arrays[name + "|weights"]
        return int(self.arrays[name + "|num_states"]), len(weights), edges.reshape(-1), weights
"""


def config(folder: Path, **options: Any) -> LibrasrBackendConfig:
    (folder / "modules").mkdir()
    (folder / "modules" / "librasr.py").write_text(MODULE)
    corpus = {**orthographies(), "toy/oov": "one nine"}
    (folder / "rasr.config").write_text(json.dumps({"corpus": corpus, "automata": "nowhere"}))
    (folder / "labels.txt").write_text("\n".join(inventory().labels) + "\n", encoding="utf-8")
    return LibrasrBackendConfig(
        configuration=folder / "rasr.config",
        labels=folder / "labels.txt",
        environment={"PYTHONPATH": str(folder / "modules")},
        workers=WorkerSettings(**{**QUICK, "start_timeout": 60.0}),
        **{"silence": "[SILENCE]", "lexicon": LEXICON, "settings": {"automata": str(AUTOMATA)}, **options},
    )


def test_automata(tmp_path: Path) -> None:
    backend = within(30, lambda: load_librasr_backend(config(tmp_path)))
    try:
        assert backend.name == "librasr"
        assert backend.inventory == inventory()
        assert backend.capabilities == {Capability.AUTOMATA_BY_SEGMENT, Capability.AUTOMATA_BY_ORTHOGRAPHY}
        segments = list(orthographies())
        items = [
            *map(Segment, segments),
            Orthography("  one  two"),
            Orthography("one nine"),
            Segment("toy/oov"),
            Segment("toy/nope"),
            Orthography("two one"),
        ]
        answer = backend.automata(items)
        assert kinds(answer.errors) == [
            *[None] * 7, OutOfVocabularyError, OutOfVocabularyError, UnknownSegmentError, EngineError,
        ]  # fmt: skip
        for fsa, segment in zip(answer.automata, [*segments, segments[0]], strict=True):
            assert fsa.equal(golden(segment)), segment
    finally:
        within(5, backend.close)


def test_without_the_module(tmp_path: Path) -> None:
    missing = config(tmp_path)
    (tmp_path / "modules" / "librasr.py").unlink()
    with pytest.raises(
        EngineMissingError, match=r"librasr can't be imported \(No module named 'librasr'\); build RASR"
    ):
        within(30, lambda: load_librasr_backend(missing))


def test_a_configuration_that_rasr_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("librasr")
    exec(MODULE, module.__dict__)
    monkeypatch.setitem(sys.modules, "librasr", module)
    (tmp_path / "rasr.config").write_text("{}")
    with pytest.raises(
        EngineStartError, match=r"RASR can't be set up by .*rasr\.config: corpus file isn't given"
    ):
        LibrasrEngine(
            tmp_path / "rasr.config",
            settings={},
            inventory=inventory(),
            vocabulary=Vocabulary(None),
            digest="",
        )
