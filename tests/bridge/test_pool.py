"""An engine in worker processes is the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from seqtrain.aligner.v1 import aligner_pb2 as pb
from seqtrain.aligner.v1.aligner_pb2_grpc import AlignerStub
from seqtrain.errors import (
    ConfigError,
    EngineError,
    InfeasibleError,
    LexiconError,
    OutOfVocabularyError,
    SkippedError,
    UnknownSegmentError,
    WorkerCrashedError,
)
from sprint_bridge.backends.base import Backend, Orthography, Segment
from sprint_bridge.backends.local import load_local_backend
from sprint_bridge.backends.pool import PooledBackend, host_engine
from sprint_bridge.config import parse_config
from sprint_bridge.server import AlignerServer
from sprint_bridge.workers.errors import EngineMismatchError, EngineMissingError, EngineStartError
from sprint_bridge.workers.frames import Frame
from sprint_bridge.workers.main import ENGINES, Host
from sprint_bridge.workers.settings import WorkerSettings
from tests.bridge.toy import write_config
from tests.bridge.toy_pool import QUICK, supervisor, within


def toy(*options: str, **settings: Any) -> PooledBackend:
    """A pool of toy engines."""
    return PooledBackend(supervisor(*options, **settings))


def kinds(errors: tuple[Any, ...]) -> list[type | None]:
    return [None if error is None else type(error) for error in errors]


def test_a_hosted_engine_answers_as_one_in_this_process(tmp_path: Path) -> None:
    configuration = write_config(tmp_path)["backend"]
    (tmp_path / "alignments.jsonl").write_text('{"segment": "toy/1", "labels": [0, 1, 1]}\n')
    configuration["alignments"] = str(tmp_path / "alignments.jsonl")
    here = load_local_backend(parse_config({"backend": configuration}, folder=tmp_path).backend)
    there = within(
        30, lambda: host_engine("local", configuration, WorkerSettings(**{**QUICK, "start_timeout": 60.0}))
    )
    try:
        assert there.name == here.name
        assert there.capabilities == here.capabilities
        assert there.inventory == here.inventory
        assert there.config_digest == here.config_digest

        items = [
            Segment("toy/1"),
            Segment("nix"),
            Segment("toy/oov"),
            Orthography(" three  one "),
            Segment("toy/empty"),
        ]
        ours, theirs = here.automata(items), there.automata(items)
        assert kinds(theirs.errors) == [None, UnknownSegmentError, OutOfVocabularyError, None, None]
        assert [str(error) for error in theirs.errors] == [str(error) for error in ours.errors]
        assert theirs.errors[2].words == ("nine", "ten")  # type: ignore[union-attr]
        for one, other in zip(theirs.automata, ours.automata, strict=True):
            assert one.equal(other)

        segments = ["toy/1", "toy/2", "nix"]
        generator = np.random.default_rng(0)
        scores = [
            generator.normal(size=(size, len(here.inventory))).astype(np.float32) for size in (30, 3, 5)
        ]
        for found, expected in (
            (there.alignments(segments), here.alignments(segments)),
            (there.align(segments, scores), here.align(segments, scores)),
        ):
            assert kinds(found.errors) == kinds(expected.errors)
            for labels, wanted in zip(found.labels, expected.labels, strict=True):
                np.testing.assert_array_equal(labels, wanted)
        found, expected = there.losses(segments, scores), here.losses(segments, scores)
        assert kinds(found.errors) == [None, InfeasibleError, UnknownSegmentError]
        needed = found.errors[1]
        assert isinstance(needed, InfeasibleError)
        assert (needed.utterances[0].tag, needed.utterances[0].frames) == ("toy/2", 3)
        np.testing.assert_array_equal(found.losses, expected.losses)
        for signal, wanted in zip(found.signals, expected.signals, strict=True):
            np.testing.assert_array_equal(signal, wanted)
    finally:
        within(5, there.close)


def test_a_worker_whose_engine_cannot_be_loaded(tmp_path: Path) -> None:
    def load(configuration: Mapping[str, Any]) -> Backend:
        raise configuration["error"]

    host = Host(load)
    for error, kind in (
        (EngineMissingError("no module"), "missing_module"),
        (LexiconError("no word"), "failed"),
    ):
        answer = host.answer(Frame({"operation": "describe", "configuration": {"error": error}}, {}))
        assert answer.message == {"error": {"kind": kind, "message": str(error)}}
    answer = host.answer(Frame({"operation": "automaton", "segment": "a"}, {}))
    assert answer.message["error"]["message"] == "the engine hasn't been loaded"
    with pytest.raises(ConfigError, match=r"backend\.lexicon must be"):
        ENGINES["local"]({})


def test_each_item_has_its_own_answer(tmp_path: Path) -> None:
    backend = toy(f"state={tmp_path}", instances=2)
    try:
        assert backend.name == "toy"
        assert backend.inventory.blank == 0
        names = ["a", "bb-once-kill", "kill", "x-unknown", "x-skipped", "x-bad", "x-torn", "ccc"]
        answer = within(10, lambda: backend.automata([Segment(name) for name in names]))
        assert kinds(answer.errors) == [
            *(
                None,
                None,
                WorkerCrashedError,
                UnknownSegmentError,
                SkippedError,
                EngineError,
                EngineError,
                None,
            )
        ]
        torn = answer.errors[6]
        assert isinstance(torn, EngineError)
        assert torn.segment == "x-torn"
        assert "the engine's automaton is malformed: " in str(torn)
        assert answer.automata.num_states.tolist() == [2, 13, 4]
        scores = [np.full((size, 2), size, dtype=np.float32) for size in (1, 4, 2)]
        losses = backend.losses(["a", "kill-2", "c"], scores)
        assert losses.losses.tolist() == [2.0, np.inf, 8.0]
        np.testing.assert_array_equal(losses.signals[2], 2 * scores[2])
        np.testing.assert_array_equal(losses.signals[1], np.zeros((4, 2)))
        assert backend.counters()["toy"].quarantined == 2
        empty = backend.automata([])
        assert (len(empty.automata), empty.errors) == (0, ())
    finally:
        within(5, backend.close)


def test_instances_that_disagree_about_their_digest(tmp_path: Path) -> None:
    with pytest.raises(EngineMismatchError, match="config_digest is "):
        within(5, lambda: toy("digests=12,13", f"state={tmp_path}", instances=2))


def test_descriptions_that_make_no_sense() -> None:
    class Silent:
        def start(self) -> dict[str, Any]:
            return {"engine": "toy", "capabilities": ["clairvoyance"]}

        def close(self) -> None:
            self.closed = True

    silent = Silent()
    with pytest.raises(EngineStartError, match="a worker's description of itself is wrong: ValueError"):
        PooledBackend(silent)  # type: ignore[arg-type]
    assert silent.closed


def test_behind_the_service(tmp_path: Path) -> None:
    server = AlignerServer(listen=f"unix:{tmp_path}/a.sock")
    server.start()
    server.serve(toy(instances=2))
    with grpc.insecure_channel(server.target) as channel:
        stub = AlignerStub(channel)
        names = ["a", "kill", "x-unknown", "x-skipped"]
        request = pb.GetAutomataRequest(items=[pb.ItemKey(segment=name) for name in names])
        expected = [pb.ITEM_CODE_OK, pb.ITEM_CODE_CRASHED, pb.ITEM_CODE_UNKNOWN_SEGMENT, pb.ITEM_CODE_SKIPPED]
        assert [status.code for status in stub.GetAutomata(request, timeout=10).statuses] == expected
        expected[1] = pb.ITEM_CODE_QUARANTINED
        assert [status.code for status in stub.GetAutomata(request, timeout=10).statuses] == expected
        # The service ends while a worker hangs.
        hanging = pb.GetAutomataRequest(items=[pb.ItemKey(segment="hang")])
        call = stub.GetAutomata.future(hanging, timeout=20)
        time.sleep(0.3)
        began = time.monotonic()
        within(10, lambda: server.stop(0.2))
        assert time.monotonic() - began < 5
        assert call.code() != grpc.StatusCode.OK
    assert not any(thread.name.startswith("toy-") for thread in threading.enumerate())
