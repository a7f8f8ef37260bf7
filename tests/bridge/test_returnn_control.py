"""The engine that is an executable under RETURNN's control module; stand-ins for both.

`tests/returnn_sprint/run` does it with RETURNN itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqtrain.errors import (
    ArgumentError,
    ConfigError,
    EngineError,
    SkippedError,
    UnknownSegmentError,
    WorkerCrashedError,
)
from sprint_bridge.backends.base import Capability, Orthography, Segment
from sprint_bridge.backends.returnn_control import ReturnnControlBackend, ReturnnControlBackendConfig
from sprint_bridge.workers.errors import EngineStartError
from sprint_bridge.workers.settings import WorkerSettings
from tests.bridge.stand_in import QUICK, install, install_returnn, orthographies
from tests.bridge.test_sprint_backend import golden, kinds
from tests.bridge.toy_pool import within

SEGMENTS = list(orthographies())


def start(
    folder: Path, *, environment: dict[str, str] | None = None, **options: Any
) -> ReturnnControlBackend:
    stand_in = install(folder, misbehave=options.pop("misbehave", None))
    workers = WorkerSettings(**{**QUICK, **options.pop("workers", {})})
    return ReturnnControlBackend(
        ReturnnControlBackendConfig(
            executable=stand_in.executable,
            arguments=stand_in.arguments,
            returnn=install_returnn(folder),
            labels=stand_in.labels,
            environment={**stand_in.environment, "EVIL": str(folder / "evil"), **(environment or {})},
            workers=workers,
            **options,
        )
    )


def test_automata(tmp_path: Path) -> None:
    backend = start(tmp_path, workers={"instances": 2}, misbehave={SEGMENTS[1]: "kill-once"})
    try:
        assert backend.capabilities == {Capability.AUTOMATA_BY_SEGMENT}
        assert backend.name == "returnn-control"
        items = [*map(Segment, SEGMENTS), Segment("toy/nope"), Orthography("one")]
        answer = within(10, lambda: backend.automata(items))
        assert kinds(answer.errors) == [*[None] * 6, UnknownSegmentError, EngineError]
        for fsa, segment in zip(answer.automata, SEGMENTS, strict=True):
            assert fsa.equal(golden(segment)), segment
        assert backend.counters()["returnn-control"].crashes == 1
        with pytest.raises(ArgumentError, match="the backend returnn-control has no alignments"):
            backend.alignments([SEGMENTS[0]])
    finally:
        backend.close()


def test_what_must_not_be_believed(tmp_path: Path) -> None:
    backend = start(
        tmp_path, workers={"instances": 2}, misbehave={SEGMENTS[0]: "garbage"}, max_message_bytes=1000
    )
    try:
        names = ["evil", "length", "short", SEGMENTS[0], SEGMENTS[5], SEGMENTS[1]]
        answer = within(10, lambda: backend.automata([Segment(name) for name in names]))
        assert kinds(answer.errors) == [*[WorkerCrashedError] * 5, None]
        for error, message in zip(
            answer.errors,
            (
                "the answer names 'posix.system', which is not allowed",
                "the answer has -5 bytes, 1 to 1000 are taken",
                "the answer is ('ok', 1), no automaton",
                "bytes, 1 to 1000 are taken",
                "bytes, 1 to 1000 are taken",
            ),
            strict=False,
        ):
            assert message in str(error)
        assert not (tmp_path / "evil").exists()
    finally:
        backend.close()


def test_losses(tmp_path: Path) -> None:
    backend = start(tmp_path, losses=True)
    try:
        assert backend.capabilities == {Capability.LOSSES}
        scores = np.arange(3 * 34, dtype=np.float32).reshape(3, 34)
        answer = backend.losses([SEGMENTS[0], "skipped"], [scores, scores[:2]])
        assert kinds(answer.errors) == [None, SkippedError]
        assert answer.losses.tolist() == [float(scores.sum()), np.inf]
        np.testing.assert_array_equal(answer.signals[0], 2 * scores)
        np.testing.assert_array_equal(answer.signals[1], np.zeros((2, 34)))
    finally:
        backend.close()


def test_set_ups_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match=r"it greets with \('ok', 'SprintControl', 2\)"):
        start(tmp_path, environment={"VERSION": "2"})
    for options, message in (
        ({"control_options": {"verbose": "a,b"}}, r"control_options\.verbose: 'a,b' may not hold a comma"),
        ({"control_options": {"c2p_fd": "3"}}, r"control_options\.c2p_fd is set by the server"),
        ({"max_message_bytes": 0}, r"max_message_bytes must be in 1 … 2³¹ - 1, found 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            ReturnnControlBackendConfig(
                executable=tmp_path, arguments=(), returnn=tmp_path, labels=tmp_path, **options
            )
