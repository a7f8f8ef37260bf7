"""A Sprint or RASR executable that RETURNN's own control module is set up for, as an engine.

For setups that have to stay as they are; `sprint_bridge.backends.sprint` does more. The protocol is RETURNN's: pickles
behind their length, one request at a time, and nothing that tells labels or configuration. RETURNN's side needs a numpy
before 2.3, which took out `fromstring`; ours may be any.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import ConfigError, EngineError
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
from sprint_bridge.backends.pool import batch_automata, batch_losses, item_message, loss_job
from sprint_bridge.rasr.automaton import read_cost_automaton
from sprint_bridge.rasr.digest import describe_arguments
from sprint_bridge.rasr.executable import check_control_options, control_arguments
from sprint_bridge.rasr.labels import read_label_inventory
from sprint_bridge.rasr.pickles import PickleRefusedError, Value, decode_message, encode_message
from sprint_bridge.workers.errors import EngineStartError, WorkerFailedError
from sprint_bridge.workers.frames import Frame, MalformedFrameError
from sprint_bridge.workers.items import Automaton, raise_error
from sprint_bridge.workers.loop import failure
from sprint_bridge.workers.process import Command, ProcessWorker
from sprint_bridge.workers.settings import WorkerSettings
from sprint_bridge.workers.supervisor import Job, PoolCounters, Supervisor

__all__ = [
    "ReturnnControlBackend",
    "ReturnnControlBackendConfig",
    "ReturnnWorker",
    "load_returnn_control_backend",
]

_REVISION = 1
_MODULE = "returnn.sprint.control"
_LENGTH = struct.Struct("<i")
_HELLO = ("init", "SprintSubprocessInstance", 1)
_HELLO_ANSWER = ("ok", "SprintControl", 1)


@dataclass(frozen=True)
class ReturnnControlBackendConfig:
    """An executable under RETURNN's control module.

    Attributes:
        executable: its path; a script that calls it is fine.
        arguments: of the executable, its `--config=FILE` among them.
        returnn: folder that holds the package `returnn`.
        labels: file with the label of each emission class, one a line.
        silence, blank: the labels of silence and blank, or None where there is no such.
        losses: whether this setup computes losses, while it walks through its corpus, and not automata. RETURNN's
            module manages that with a lattice processor only.
        control_options: handed on to RETURNN's module, such as `quiet`.
        minimum_version: the oldest control interface that RETURNN's module accepts.
        digest_files: files that decide what automata look like; their content is part of the configuration's digest,
            as that of the file of `--config` is.
        environment: variables set for the executable, such as PYTHONPATH for its numpy.
        max_message_bytes: the longest message taken.
        workers: how many instances, and how long they may take.
        log: file that what the executables print is appended to, or None.
    """

    executable: Path
    arguments: tuple[str, ...]
    returnn: Path
    labels: Path
    silence: str | None = None
    blank: str | None = None
    losses: bool = False
    control_options: Mapping[str, str] = field(default_factory=dict)
    minimum_version: int = 2
    digest_files: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    max_message_bytes: int = 256 << 20
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    log: Path | None = None

    def __post_init__(self) -> None:
        check_control_options(self.control_options)
        if not 0 < self.max_message_bytes < 1 << 31:
            raise ConfigError(
                f"max_message_bytes must be in 1 … 2³¹ - 1, found {self.max_message_bytes}",
                key="max_message_bytes",
            )


class ReturnnWorker(ProcessWorker):
    """One executable, spoken to as RETURNN speaks to it.

    Args:
        command: how it is called.
        max_message_bytes: the longest message taken.

    Raises:
        EngineStartError: the program is missing or can't be run.
    """

    def __init__(self, command: Command, *, max_message_bytes: int) -> None:
        super().__init__(command)
        self._max_message_bytes = max_message_bytes

    def describe(self, *, deadline: float) -> Mapping[str, Any]:
        try:
            self.ping(deadline=deadline)
        except WorkerFailedError as error:
            raise EngineStartError(f"{self._name} can't be started: {error}") from error
        return {"protocol": _HELLO_ANSWER[2]}

    def request(
        self, message: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], *, deadline: float
    ) -> Frame:
        segment = message["segment"]
        if message["operation"] == "loss":
            scores = arrays["scores"].astype(np.float32)
            answer = self._exchange(("get_loss_and_error_signal", segment, len(scores), scores), deadline)
        else:
            answer = self._exchange(("export_allophone_state_fsa_by_segment_name", segment), deadline)
        if answer[:1] == ("exception",):
            text = " ".join(map(str, answer[1:]))
            return failure("unknown_segment" if "unknown segment" in text else "failed", text)
        return _loss(answer) if message["operation"] == "loss" else _automaton(answer)

    def ping(self, *, deadline: float) -> None:
        # There is no ping; to be greeted again is harmless.
        answer = self._exchange(_HELLO, deadline)
        if answer != _HELLO_ANSWER:
            self.kill()
            raise WorkerFailedError(f"it greets with {answer!r:.200}, not with {_HELLO_ANSWER!r}")

    def _exchange(self, message: Sequence[Value], deadline: float) -> tuple[Value, ...]:
        content = encode_message(message)
        with self._conversation():
            self._channel.write(memoryview(_LENGTH.pack(len(content)) + content), deadline)
            prefix = bytearray(_LENGTH.size)
            self._channel.fill(memoryview(prefix), deadline)
            (length,) = _LENGTH.unpack(prefix)
            if not 0 < length <= self._max_message_bytes:
                raise MalformedFrameError(f"has {length} bytes, 1 to {self._max_message_bytes} are taken")
            answer = bytearray(length)
            self._channel.fill(memoryview(answer), deadline)
            try:
                return decode_message(bytes(answer))
            except PickleRefusedError as error:
                raise MalformedFrameError(str(error)) from error

    def _say_goodbye(self, deadline: float) -> None:
        content = encode_message(("exit",))
        self._channel.write(memoryview(_LENGTH.pack(len(content)) + content), deadline)


def _automaton(answer: tuple[Value, ...]) -> Frame:
    if len(answer) != 5 or answer[0] != "ok":
        raise WorkerFailedError(f"the answer is {answer!r:.80}, no automaton")
    _, num_states, num_edges, edges, costs = answer
    if not isinstance(edges, np.ndarray) or not isinstance(costs, np.ndarray) or costs.shape != (num_edges,):
        raise WorkerFailedError(f"the answer is {answer!r:.80}, no automaton")
    return Frame({"num_states": num_states}, {"edges": edges, "costs": costs})


def _loss(answer: tuple[Value, ...]) -> Frame:
    if len(answer) != 3 or answer[0] != "ok":
        raise WorkerFailedError(f"the answer is {answer!r:.80}, no loss")
    _, loss, signal = answer
    if isinstance(loss, np.ndarray) and loss.ndim == 0:
        loss = loss.item()
    if isinstance(loss, bool) or not isinstance(loss, int | float) or not isinstance(signal, np.ndarray):
        raise WorkerFailedError(f"the answer is {answer!r:.80}, no loss")
    if loss == math.inf:
        return failure("skipped", "RETURNN's module reports an infinite loss: Sprint skipped the segment")
    return Frame({}, {"loss": np.array(loss, dtype=np.float64), "signal": signal.astype(np.float32)})


class ReturnnControlBackend:
    """Automata by segment, or losses, of an executable's instances.

    Args:
        config: what to start.

    Raises:
        EngineStartError: the executable is missing or doesn't get ready.
        ConfigError, DataError: a file of the configuration can't be read or is malformed.
    """

    def __init__(self, config: ReturnnControlBackendConfig) -> None:
        self._config = config
        self._inventory = read_label_inventory(config.labels, silence=config.silence, blank=config.blank)
        # Workers can't be asked what they are, so that is all there is to tell setups apart.
        self._digest = content_digest(
            [
                _REVISION,
                "returnn",
                self._inventory.etag,
                config.losses,
                dict(config.control_options),
                describe_arguments(config.arguments, config.digest_files),
            ]
        )
        command = Command(self.name, self._arguments, environment=config.environment, log=config.log)
        self._supervisor = Supervisor(
            lambda: ReturnnWorker(command, max_message_bytes=config.max_message_bytes),
            config.workers,
            name=self.name,
        )
        self._supervisor.start()

    @property
    def name(self) -> str:
        return "returnn-control"

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.LOSSES if self._config.losses else Capability.AUTOMATA_BY_SEGMENT})

    @property
    def inventory(self) -> LabelInventory:
        return self._inventory

    @property
    def config_digest(self) -> str:
        return self._digest

    def automata(self, items: Sequence[Segment | Orthography]) -> BatchAutomata:
        jobs = [self._job(item) for item in items if isinstance(item, Segment)]
        answers = iter(self._supervisor.run(jobs))
        return batch_automata(
            items,
            [
                next(answers)
                if isinstance(item, Segment)
                else EngineError("RETURNN's protocol has no automata by orthography", segment=item.text)
                for item in items
            ],
        )

    def alignments(self, segments: Sequence[str]) -> BatchAlignments:
        raise incapable(self.name, Capability.ALIGNMENTS)

    def align(self, segments: Sequence[str], scores: Sequence[NDArray[np.float32]]) -> BatchAlignments:
        raise incapable(self.name, Capability.FORCED_ALIGNMENT)

    def losses(self, segments: Sequence[str], log_posteriors: Sequence[NDArray[np.float32]]) -> BatchLosses:
        jobs = [loss_job(name, rows) for name, rows in zip(segments, log_posteriors, strict=True)]
        return batch_losses(self._supervisor.run(jobs), log_posteriors)

    def counters(self) -> dict[str, PoolCounters]:
        """What the pool has done so far, by its name."""
        return {self.name: self._supervisor.counters()}

    def close(self) -> None:
        self._supervisor.close()

    def _arguments(self, read: int, write: int) -> list[str]:
        config = self._config
        options = {
            "c2p_fd": str(write),
            "p2c_fd": str(read),
            "minPythonControlVersion": str(config.minimum_version),
            **config.control_options,
        }
        control = control_arguments(
            module_path=config.returnn, module=_MODULE, options=options, segment_order=config.losses
        )
        return [str(config.executable.absolute()), *control, *config.arguments]

    def _job(self, item: Segment) -> Job:
        def decode(frame: Frame) -> Automaton:
            raise_error(frame, segment=item.name)
            return read_cost_automaton(frame, segment=item.name, num_labels=len(self._inventory))

        return Job(item.name, item_message(item), decode)


def load_returnn_control_backend(config: ReturnnControlBackendConfig) -> ReturnnControlBackend:
    """Starts the executables; raises as `ReturnnControlBackend`."""
    return ReturnnControlBackend(config)
