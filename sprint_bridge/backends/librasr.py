"""RASR's Python module `librasr` as an engine: automata, made in worker processes.

The module holds the interpreter's lock while it builds, and may end the process over bad input; both are reasons for
workers.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import EngineError, SeqtrainError, UnknownSegmentError
from seqtrain.lexicon import LabelInventory
from seqtrain.lexicon.digest import content_digest
from sprint_bridge.backends.base import (
    BatchAlignments,
    BatchAutomata,
    BatchLosses,
    Capability,
    Orthography,
    Segment,
)
from sprint_bridge.backends.incapable import incapable
from sprint_bridge.backends.pool import PooledBackend, batch_automata, host_engine, item_name
from sprint_bridge.rasr.automaton import automaton_of_costs
from sprint_bridge.rasr.digest import file_digest
from sprint_bridge.rasr.labels import read_label_inventory
from sprint_bridge.rasr.orthography import Vocabulary, rasr_orthography
from sprint_bridge.workers.errors import EngineMissingError, EngineStartError
from sprint_bridge.workers.items import Automaton
from sprint_bridge.workers.settings import WorkerSettings

__all__ = ["LibrasrBackendConfig", "LibrasrEngine", "load_librasr_backend"]

_REVISION = 1


@dataclass(frozen=True)
class LibrasrBackendConfig:
    """RASR in the worker's own process.

    Attributes:
        configuration: RASR's configuration file, of the selection `lib-rasr`.
        labels: file with the label of each emission class, one a line.
        silence, blank: the labels of silence and blank, or None where there is no such.
        lexicon: that RASR uses: words that it lacks are errors then, and not skipped; or None.
        extra_words: words that RASR knows besides.
        settings: parameters of RASR set besides the file's, by their full names.
        digest_files: files that decide what automata look like; their content is part of the configuration's digest,
            as that of `configuration` is.
        environment: variables set for the workers, such as PYTHONPATH for the module.
        workers: how many instances, and how long they may take.
        log: file that what RASR prints is appended to, or None.
    """

    configuration: Path
    labels: Path
    silence: str | None = None
    blank: str | None = None
    lexicon: Path | None = None
    extra_words: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    digest_files: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    log: Path | None = None


class LibrasrEngine:
    """The engine in this process, as a worker hosts it.

    Args:
        configuration, settings: RASR's, as of `LibrasrBackendConfig`.
        inventory: the labels.
        vocabulary: the words that RASR knows.
        digest: of the configuration.

    Raises:
        EngineMissingError: there is no module `librasr`.
        EngineStartError: it can't read its configuration.
    """

    def __init__(
        self,
        configuration: Path,
        *,
        settings: Mapping[str, str],
        inventory: LabelInventory,
        vocabulary: Vocabulary,
        digest: str,
    ) -> None:
        try:
            # By name: where the module isn't there, neither is anything that describes its types.
            librasr: Any = importlib.import_module("librasr")
        except ImportError as error:
            raise EngineMissingError(
                f"the module librasr can't be imported ({error}); build RASR with its Python module, and put the "
                "folder of that into environment.PYTHONPATH"
            ) from error
        self._inventory = inventory
        self._vocabulary = vocabulary
        self._digest = digest
        try:
            rasr_configuration = librasr.Configuration()
            rasr_configuration.set_from_file(str(configuration))
            for name, value in settings.items():
                rasr_configuration.set(name, value)
            self._builder: Any = librasr.AllophoneStateFsaBuilder(rasr_configuration)
        except (ValueError, RuntimeError, OSError) as error:
            raise EngineStartError(f"RASR can't be set up by {configuration}: {error}") from error

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> LibrasrEngine:
        """The engine of a configuration as `load_librasr_backend` hands it to workers."""
        configuration = Path(values["configuration"])
        inventory = read_label_inventory(
            Path(values["labels"]), silence=values["silence"], blank=values["blank"]
        )
        lexicon = None if values["lexicon"] is None else Path(values["lexicon"])
        digest = content_digest(
            [
                _REVISION,
                "librasr",
                inventory.etag,
                file_digest(configuration, key="configuration"),
                None if lexicon is None else file_digest(lexicon, key="lexicon"),
                sorted(values["extra_words"]),
                values["settings"],
                [file_digest(Path(path), key="digest_files") for path in values["digest_files"]],
            ]
        )
        return cls(
            configuration,
            settings=values["settings"],
            inventory=inventory,
            vocabulary=Vocabulary(lexicon, extra_words=values["extra_words"]),
            digest=digest,
        )

    @property
    def name(self) -> str:
        return "librasr"

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.AUTOMATA_BY_SEGMENT, Capability.AUTOMATA_BY_ORTHOGRAPHY})

    @property
    def inventory(self) -> LabelInventory:
        return self._inventory

    @property
    def config_digest(self) -> str:
        return self._digest

    def automata(self, items: Sequence[Segment | Orthography]) -> BatchAutomata:
        return batch_automata(items, [self._automaton(item) for item in items])

    def alignments(self, segments: Sequence[str]) -> BatchAlignments:
        raise incapable(self.name, Capability.ALIGNMENTS)

    def align(self, segments: Sequence[str], scores: Sequence[NDArray[np.float32]]) -> BatchAlignments:
        raise incapable(self.name, Capability.FORCED_ALIGNMENT)

    def losses(self, segments: Sequence[str], log_posteriors: Sequence[NDArray[np.float32]]) -> BatchLosses:
        raise incapable(self.name, Capability.LOSSES)

    def close(self) -> None:
        """The process ends with it."""

    def _automaton(self, item: Segment | Orthography) -> Automaton | SeqtrainError:
        name = item_name(item)
        try:
            text = self._orthography(item)
            error = self._vocabulary.check(text, segment=name)
            if error is not None:
                return error
            if isinstance(item, Orthography):
                exported = self._builder.build_by_orthography(rasr_orthography(text))
            else:
                exported = self._builder.build_by_segment_name(name)
            num_states, _, edges, costs = exported
            return automaton_of_costs(
                int(num_states),
                np.asarray(edges, dtype=np.uint32),
                np.asarray(costs, dtype=np.float32),
                segment=name,
                num_labels=len(self._inventory),
            )
        except SeqtrainError as error:
            return error
        except (ValueError, KeyError, RuntimeError) as error:
            return EngineError(f"RASR has no automaton: {error}", segment=name)

    def _orthography(self, item: Segment | Orthography) -> str:
        if isinstance(item, Orthography):
            return item.text
        try:
            text: str = self._builder.get_orthography_by_segment_name(item.name)
        except (ValueError, KeyError) as error:
            raise UnknownSegmentError(f"RASR: {error}", utterance=item.name) from error
        return text


def load_librasr_backend(config: LibrasrBackendConfig) -> PooledBackend:
    """Starts workers that host the engine.

    Raises:
        EngineStartError: they don't get ready; EngineMissingError where there is no module `librasr`.
        EngineMismatchError: they don't say the same.
    """
    return host_engine(
        "librasr",
        {
            "configuration": str(config.configuration.absolute()),
            "labels": str(config.labels.absolute()),
            "silence": config.silence,
            "blank": config.blank,
            "lexicon": None if config.lexicon is None else str(config.lexicon.absolute()),
            "extra_words": list(config.extra_words),
            "settings": dict(config.settings),
            "digest_files": [str(path.absolute()) for path in config.digest_files],
        },
        config.workers,
        environment=config.environment,
        log=config.log,
    )
