"""A Sprint or RASR executable as an engine, driven through its Python control interface by our own control module."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sprint_bridge
from seqtrain.align.sprint_cache import Allophones, SprintAlignment, columns_of, frame_labels
from seqtrain.errors import ConfigError, EngineError, SeqtrainError
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
from sprint_bridge.backends.pool import (
    batch_alignments,
    batch_automata,
    batch_losses,
    item_message,
    item_name,
    loss_job,
)
from sprint_bridge.rasr.automaton import read_cost_automaton
from sprint_bridge.rasr.digest import describe_arguments, file_digest
from sprint_bridge.rasr.executable import control_arguments
from sprint_bridge.rasr.labels import read_label_inventory
from sprint_bridge.rasr.orthography import Vocabulary, rasr_orthography
from sprint_bridge.workers.errors import EngineStartError
from sprint_bridge.workers.frames import Frame
from sprint_bridge.workers.items import Automaton, array_of, raise_error
from sprint_bridge.workers.process import Command, WorkerProcess
from sprint_bridge.workers.settings import WorkerSettings
from sprint_bridge.workers.supervisor import Job, PoolCounters, Supervisor

__all__ = ["SprintBackend", "SprintBackendConfig", "SprintLossConfig", "load_sprint_backend"]

# Part of the digest: raise it when the same setup gives other answers than before.
_REVISION = 1
_MODULE = "sprint_bridge.sprint_control"


@dataclass(frozen=True)
class SprintLossConfig:
    """A second pool of executables that walk through a corpus and compute losses.

    Attributes:
        arguments: of the executable, its `--config=FILE` among them: one whose action is the training of a network
            over a corpus, with a criterion computed from scores and an orthography, or by a lattice processor with a
            Python layer.
        workers: how many, and how long they may take.
    """

    arguments: tuple[str, ...]
    workers: WorkerSettings = field(default_factory=WorkerSettings)


@dataclass(frozen=True)
class SprintBackendConfig:
    """A Sprint or RASR executable.

    Attributes:
        executable: its path; a script that calls it is fine.
        arguments: of the executable, its `--config=FILE` among them: one whose action is `python-control` with the
            loop type `python-control-loop`.
        labels: file with the label of each emission class, one a line.
        silence, blank: the labels of silence and blank, or None where there is no such.
        lexicon: that the executable uses: words that it lacks are errors then, and not skipped; or None.
        extra_words: words that the executable knows besides.
        alignment_cache: archive or bundle of alignments to serve as RASR reads them, or None. Of a bundle, put the
            archives into digest_files.
        allophones: list that the ids of allophone states in that archive count.
        probes: orthographies whose automata are part of what all instances must agree about.
        digest_files: files that decide what automata look like; their content is part of the configuration's digest,
            as that of the file of `--config` is.
        environment: variables set for the executable, such as PYTHONPATH for its numpy.
        minimum_version: the oldest control interface that will do.
        losses: the pool for losses, or None.
        workers: how many instances, and how long they may take.
        log: file that what the executables print is appended to, or None.
    """

    executable: Path
    arguments: tuple[str, ...]
    labels: Path
    silence: str | None = None
    blank: str | None = None
    lexicon: Path | None = None
    extra_words: tuple[str, ...] = ()
    alignment_cache: Path | None = None
    allophones: Path | None = None
    probes: tuple[str, ...] = ()
    digest_files: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    minimum_version: int = 2
    losses: SprintLossConfig | None = None
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    log: Path | None = None

    def __post_init__(self) -> None:
        if self.alignment_cache is not None and self.allophones is None:
            raise ConfigError(
                "allophones is needed with alignment_cache: the ids in it count that list", key="allophones"
            )


class SprintBackend:
    """Automata, cached alignments and losses of an executable's instances.

    Args:
        config: what to start.

    Raises:
        EngineStartError: the executable is missing or doesn't get ready, or its control interface is too old.
        EngineMismatchError: instances disagree.
        ConfigError, DataError, LexiconError: a file of the configuration can't be read or is malformed.
    """

    def __init__(self, config: SprintBackendConfig) -> None:
        self._config = config
        self._inventory = read_label_inventory(config.labels, silence=config.silence, blank=config.blank)
        self._vocabulary = Vocabulary(config.lexicon, extra_words=config.extra_words)
        self._allophones = None if config.allophones is None else Allophones.read(config.allophones)
        setup = self._setup()
        self._path = _ModulePath()
        self._losses: Supervisor | None = None
        probes = [rasr_orthography(probe) for probe in config.probes]
        self._automata = self._supervisor(
            "sprint",
            config.arguments,
            config.workers,
            {"operation": "describe", "probes": probes},
            corpus=False,
        )
        try:
            description = self._started(self._automata, "control")
            if config.losses is not None:
                self._losses = self._supervisor(
                    "sprint losses",
                    config.losses.arguments,
                    config.losses.workers,
                    {"operation": "describe"},
                    corpus=True,
                )
                self._started(self._losses, "corpus")
        except BaseException:
            self.close()
            raise
        self._digest = content_digest([setup, dict(description)])

    @property
    def name(self) -> str:
        return "sprint"

    @property
    def capabilities(self) -> frozenset[Capability]:
        able = {Capability.AUTOMATA_BY_SEGMENT, Capability.AUTOMATA_BY_ORTHOGRAPHY}
        if self._config.alignment_cache is not None:
            able.add(Capability.ALIGNMENTS)
        if self._losses is not None:
            able.add(Capability.LOSSES)
        return frozenset(able)

    @property
    def inventory(self) -> LabelInventory:
        return self._inventory

    @property
    def config_digest(self) -> str:
        return self._digest

    def automata(self, items: Sequence[Segment | Orthography]) -> BatchAutomata:
        results: list[Automaton | SeqtrainError | None] = [None] * len(items)
        asked: list[int] = []
        jobs: list[Job] = []
        for index, item in enumerate(items):
            error = self._vocabulary.check(item.text) if isinstance(item, Orthography) else None
            if error is not None:
                results[index] = error
            else:
                asked.append(index)
                jobs.append(self._automaton_job(item))
        for index, result in zip(asked, self._automata.run(jobs), strict=True):
            results[index] = result
        return batch_automata(items, [result for result in results if result is not None])

    def alignments(self, segments: Sequence[str]) -> BatchAlignments:
        return batch_alignments(self._automata.run([self._alignment_job(name) for name in segments]))

    def align(self, segments: Sequence[str], scores: Sequence[NDArray[np.float32]]) -> BatchAlignments:
        raise EngineError(
            "an executable's alignments are those of its cache", segment=", ".join(segments[:1])
        )

    def losses(self, segments: Sequence[str], log_posteriors: Sequence[NDArray[np.float32]]) -> BatchLosses:
        if self._losses is None:
            raise incapable(self.name, Capability.LOSSES)
        # An executable that walks through its corpus ends over a segment that it doesn't know, so the others are
        # asked for it first.
        results: list[Any] = self._automata.run([self._orthography_job(name) for name in segments])
        known = [index for index, result in enumerate(results) if not isinstance(result, SeqtrainError)]
        answers = self._losses.run([loss_job(segments[index], log_posteriors[index]) for index in known])
        for index, answer in zip(known, answers, strict=True):
            results[index] = answer
        return batch_losses(results, log_posteriors)

    def counters(self) -> dict[str, PoolCounters]:
        """What each pool has done so far, by its name."""
        pools = {"sprint": self._automata, "sprint losses": self._losses}
        return {name: pool.counters() for name, pool in pools.items() if pool is not None}

    def close(self) -> None:
        for pool in (self._automata, self._losses):
            if pool is not None:
                pool.close()
        self._path.remove()

    def _setup(self) -> list[object]:
        """All that decides the answers and that we know of."""
        config = self._config
        losses = config.losses
        files = {
            key: None if path is None else file_digest(path, key=key)
            for key, path in (
                ("lexicon", config.lexicon),
                ("allophones", config.allophones),
                ("alignment_cache", config.alignment_cache),
            )
        }
        return [
            _REVISION,
            "sprint",
            self._inventory.etag,
            files,
            sorted(config.extra_words),
            describe_arguments(config.arguments, config.digest_files),
            None if losses is None else describe_arguments(losses.arguments, ()),
        ]

    def _supervisor(
        self,
        name: str,
        arguments: Sequence[str],
        settings: WorkerSettings,
        description: Mapping[str, Any],
        *,
        corpus: bool,
    ) -> Supervisor:
        config = self._config
        command = Command(
            name,
            lambda read, write: [
                str(config.executable.absolute()),
                *control_arguments(
                    module_path=self._path.folder,
                    module=_MODULE,
                    options={
                        "c2p_fd": str(write),
                        "p2c_fd": str(read),
                        "minPythonControlVersion": str(config.minimum_version),
                    },
                    segment_order=corpus,
                ),
                *arguments,
            ],
            environment=config.environment,
            log=config.log,
        )
        return Supervisor(lambda: WorkerProcess(command, description=description), settings, name=name)

    def _started(self, supervisor: Supervisor, loop: str) -> Mapping[str, Any]:
        description = supervisor.start()
        if description.get("loop") != loop:
            wanted = "python-control-loop" if loop == "control" else "iterate-corpus"
            raise EngineStartError(
                f"{self._config.executable} doesn't run the loop that this is for: set "
                f"python-control-loop-type = {wanted}"
            )
        version = description.get("version", self._config.minimum_version)
        if not isinstance(version, int) or version < self._config.minimum_version:
            raise EngineStartError(
                f"{self._config.executable} has the control interface {version!r:.40}, needed is "
                f"{self._config.minimum_version}"
            )
        return description

    def _automaton_job(self, item: Segment | Orthography) -> Job:
        name = item_name(item)
        if isinstance(item, Orthography):
            message = item_message(Orthography(rasr_orthography(item.text)))
        else:
            message = {**item_message(item), "with_orthography": self._vocabulary.is_known}

        def decode(frame: Frame) -> Automaton:
            raise_error(frame, segment=name)
            orthography = frame.message.get("orthography")
            if isinstance(orthography, str):
                # Words of the corpus that the lexicon lacks: the automaton is of the others only.
                error = self._vocabulary.check(orthography, segment=name)
                if error is not None:
                    raise error
            return read_cost_automaton(frame, segment=name, num_labels=len(self._inventory))

        return Job(name, message, decode, cost=len(name))

    def _orthography_job(self, segment: str) -> Job:
        def decode(frame: Frame) -> None:
            raise_error(frame, segment=segment)

        return Job(segment, {"operation": "orthography", "segment": segment}, decode)

    def _alignment_job(self, segment: str) -> Job:
        cache = str(self._config.alignment_cache)

        def decode(frame: Frame) -> NDArray[np.int32]:
            raise_error(frame, segment=segment)
            states = array_of(frame, "states", ("uint32",), (None,))
            alignment = SprintAlignment("allophone-state", np.arange(len(states), dtype=np.int64), states)
            columns = columns_of(alignment, self._inventory, self._allophones)
            return frame_labels(alignment, columns, path=cache, name=segment)

        return Job(segment, {"operation": "alignment", "segment": segment, "cache": cache}, decode)


class _ModulePath:
    """A folder that holds our package and nothing else.

    It goes on the module path of an interpreter that isn't ours; the folder that our package is installed in would
    bring along a numpy, and more, which may not be made for it.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sprint-bridge-"))
        (self.folder / "sprint_bridge").symlink_to(Path(sprint_bridge.__path__[0]).absolute())

    def remove(self) -> None:
        """Removes the folder, not the package."""
        shutil.rmtree(self.folder, ignore_errors=True)


def load_sprint_backend(config: SprintBackendConfig) -> SprintBackend:
    """Starts the executables; raises as `SprintBackend`."""
    return SprintBackend(config)
