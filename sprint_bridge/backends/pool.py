"""An engine in worker processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import ArgumentError, EngineError, FsaError, SeqtrainError
from seqtrain.fsa import FsaBatch
from seqtrain.lexicon import LabelInventory
from sprint_bridge.backends.base import (
    BatchAlignments,
    BatchAutomata,
    BatchLosses,
    Capability,
    Orthography,
    Segment,
)
from sprint_bridge.workers.errors import EngineStartError, WorkerFailedError
from sprint_bridge.workers.frames import Frame
from sprint_bridge.workers.items import (
    Automaton,
    ItemLoss,
    raise_error,
    read_automaton,
    read_labels,
    read_loss,
)
from sprint_bridge.workers.process import Command, WorkerProcess
from sprint_bridge.workers.settings import WorkerSettings
from sprint_bridge.workers.supervisor import Job, PoolCounters, Supervisor

__all__ = [
    "PooledBackend",
    "batch_alignments",
    "batch_automata",
    "batch_losses",
    "host_engine",
    "item_message",
    "item_name",
    "loss_job",
]


class PooledBackend:
    """What a pool of workers answers, each of which hosts the same engine.

    Args:
        supervisor: of the pool, not yet started; is closed with this.
        name: of the engine; None: what the workers say.
        cost: about how long the automaton of an item takes, in any unit: the longest of a batch are begun first. None:
            as long as its words are, where these are known.

    Raises:
        EngineStartError: the workers don't get ready, or say nothing sensible about themselves.
        EngineMismatchError: they don't say the same.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        name: str | None = None,
        cost: Callable[[Segment | Orthography], float] | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._cost = _length if cost is None else cost
        description = supervisor.start()
        try:
            self._name = str(description["engine"]) if name is None else name
            self._capabilities = frozenset(map(Capability, description["capabilities"]))
            self._digest = str(description["config_digest"])
            self._inventory = LabelInventory(
                tuple(map(str, description["labels"])), description["silence"], description["blank"]
            )
        except (KeyError, TypeError, ValueError, ArgumentError) as error:
            supervisor.close()
            raise EngineStartError(f"a worker's description of itself is wrong: {error!r}") from error

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._capabilities

    @property
    def inventory(self) -> LabelInventory:
        return self._inventory

    @property
    def config_digest(self) -> str:
        return self._digest

    def automata(self, items: Sequence[Segment | Orthography]) -> BatchAutomata:
        return batch_automata(items, self._supervisor.run([self._automaton_job(item) for item in items]))

    def alignments(self, segments: Sequence[str]) -> BatchAlignments:
        jobs = [
            Job(name, {"operation": "alignment", "segment": name}, self._labels_decoder(name, None))
            for name in segments
        ]
        return batch_alignments(self._supervisor.run(jobs))

    def align(self, segments: Sequence[str], scores: Sequence[NDArray[np.float32]]) -> BatchAlignments:
        jobs = [
            Job(
                name,
                {"operation": "align", "segment": name},
                self._labels_decoder(name, len(rows)),
                {"scores": rows},
                cost=len(rows),
            )
            for name, rows in zip(segments, scores, strict=True)
        ]
        return batch_alignments(self._supervisor.run(jobs))

    def losses(self, segments: Sequence[str], log_posteriors: Sequence[NDArray[np.float32]]) -> BatchLosses:
        jobs = [loss_job(name, rows) for name, rows in zip(segments, log_posteriors, strict=True)]
        return batch_losses(self._supervisor.run(jobs), log_posteriors)

    def counters(self) -> dict[str, PoolCounters]:
        """What the pool has done so far, by its name."""
        return {self._name: self._supervisor.counters()}

    def close(self) -> None:
        self._supervisor.close()

    def _automaton_job(self, item: Segment | Orthography) -> Job:
        name = item_name(item)

        def decode(frame: Frame) -> Automaton:
            raise_error(frame, segment=name)
            return read_automaton(frame, segment=name, num_labels=len(self._inventory))

        return Job(name, item_message(item), decode, cost=self._cost(item))

    def _labels_decoder(self, name: str, frames: int | None) -> Callable[[Frame], NDArray[np.int32]]:
        def decode(frame: Frame) -> NDArray[np.int32]:
            raise_error(frame, segment=name)
            labels = read_labels(frame, segment=name, num_labels=len(self._inventory))
            if frames is not None and len(labels) != frames:
                raise WorkerFailedError(f"the answer has {len(labels)} labels for {frames} frames")
            return labels

        return decode


def _length(item: Segment | Orthography) -> float:
    return len(item.text) if isinstance(item, Orthography) else 0.0


def item_name(item: Segment | Orthography) -> str:
    """What errors call an item."""
    return item.text if isinstance(item, Orthography) else item.name


def item_message(item: Segment | Orthography) -> dict[str, Any]:
    """The request for an item's automaton."""
    if isinstance(item, Orthography):
        return {"operation": "automaton", "orthography": item.text}
    return {"operation": "automaton", "segment": item.name}


def loss_job(segment: str, log_posteriors: NDArray[np.float32]) -> Job:
    """The request for a loss and its error signal."""

    def decode(frame: Frame) -> ItemLoss:
        raise_error(frame, segment=segment)
        return read_loss(frame, segment=segment, shape=log_posteriors.shape)

    return Job(
        segment,
        {"operation": "loss", "segment": segment},
        decode,
        {"scores": log_posteriors},
        cost=len(log_posteriors),
    )


def batch_automata(
    items: Sequence[Segment | Orthography], results: Sequence[Automaton | SeqtrainError]
) -> BatchAutomata:
    """Automata and errors of items as the answer to a batch; an automaton that is malformed becomes an error."""
    try:
        return BatchAutomata(_joined(results), _errors(results))
    except FsaError:
        checked = [_checked(item, result) for item, result in zip(items, results, strict=True)]
        return BatchAutomata(_joined(checked), _errors(checked))


def _joined(results: Sequence[Automaton | SeqtrainError]) -> FsaBatch:
    automata = [result for result in results if isinstance(result, Automaton)]
    if not automata:
        return FsaBatch.from_list([])

    def offsets(sizes: list[int]) -> NDArray[np.int64]:
        return np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))

    return FsaBatch(
        np.concatenate([automaton.arcs for automaton in automata]),
        np.concatenate([automaton.weights for automaton in automata]),
        final_states=np.concatenate([automaton.final_states for automaton in automata]),
        final_weights=np.concatenate([automaton.final_weights for automaton in automata]),
        starts=[automaton.start for automaton in automata],
        num_states=[automaton.num_states for automaton in automata],
        arc_offsets=offsets([len(automaton.arcs) for automaton in automata]),
        final_offsets=offsets([len(automaton.final_states) for automaton in automata]),
    )


def _checked(item: Segment | Orthography, result: Automaton | SeqtrainError) -> Automaton | SeqtrainError:
    try:
        _joined([result])
    except FsaError as error:
        return EngineError(f"the engine's automaton is malformed: {error}", segment=item_name(item))
    return result


def _errors(results: Sequence[object]) -> tuple[SeqtrainError | None, ...]:
    return tuple(result if isinstance(result, SeqtrainError) else None for result in results)


def batch_alignments(results: Sequence[NDArray[np.int32] | SeqtrainError]) -> BatchAlignments:
    """Labels and errors of items as the answer to a batch."""
    none = np.zeros(0, dtype=np.int32)
    return BatchAlignments(
        tuple(none if isinstance(result, SeqtrainError) else result for result in results),
        _errors(results),
    )


def batch_losses(
    results: Sequence[ItemLoss | SeqtrainError], log_posteriors: Sequence[NDArray[np.float32]]
) -> BatchLosses:
    """Losses and errors of items as the answer to a batch."""
    losses = np.full(len(results), np.inf)
    signals = [np.zeros(rows.shape, dtype=np.float32) for rows in log_posteriors]
    for index, result in enumerate(results):
        if isinstance(result, ItemLoss):
            losses[index], signals[index] = result
    return BatchLosses(losses, tuple(signals), _errors(results))


def host_engine(
    engine: str,
    configuration: Mapping[str, Any],
    settings: WorkerSettings,
    *,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
    cost: Callable[[Segment | Orthography], float] | None = None,
) -> PooledBackend:
    """An engine that `sprint_bridge.workers.main` hosts, in worker processes.

    Args:
        engine: local, librasr or pocketsphinx.
        configuration: what the engine is loaded with, plain values.
        settings: of the pool.
        environment: variables set for the workers besides this process's own.
        log: file that what the workers print is appended to, or None.
        cost: as of `PooledBackend`.

    Raises:
        EngineStartError, EngineMismatchError: as `PooledBackend`.
    """
    command = Command(
        engine,
        lambda read, write: [
            sys.executable, "-m", "sprint_bridge.workers.main", engine, str(read), str(write)
        ],
        environment={} if environment is None else environment,
        log=log,
    )  # fmt: skip
    description = {"operation": "describe", "configuration": dict(configuration)}
    supervisor = Supervisor(lambda: WorkerProcess(command, description=description), settings, name=engine)
    return PooledBackend(supervisor, cost=cost)
