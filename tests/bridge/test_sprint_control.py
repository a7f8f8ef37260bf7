"""What runs inside Sprint, without Sprint."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sprint_bridge.sprint_control import SprintNnPythonLayer, getSegmentList, init, session
from sprint_bridge.sprint_control.automata import AutomataAnswers
from sprint_bridge.workers.frames import ByteChannel, Frame, FrameChannel

SCORES = np.arange(8, dtype=np.float32).reshape(4, 2)


class Supervisor:
    """Our end of the pipes."""

    def __init__(self) -> None:
        theirs, to_them = os.pipe()
        ours, to_us = os.pipe()
        self.config = f"c2p_fd:{to_us},p2c_fd:{theirs},minPythonControlVersion:4"
        self.channel = ByteChannel(ours, to_them)
        self.frames = FrameChannel(self.channel)

    def ask(self, **message: Any) -> Frame:
        self.frames.send({**message, "id": 1}, {"scores": SCORES})
        return self.frames.receive()


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr(session, "_sessions", {})
    ours = Supervisor()
    yield ours
    ours.channel.close()
    for theirs in session._sessions.values():
        theirs.channel._channel.close()


def in_background(call: Any) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_the_control_loop_ends_with_its_supervisor(supervisor: Supervisor) -> None:
    def callback(command: str, *arguments: Any) -> Any:
        if command == "version_number":
            return 5
        if command == "get_orthography_by_segment_name":
            return b"one two "
        raise ValueError(f"unknown command {command}")

    control = init(name="control", config=supervisor.config, callback=callback, version_number=5)
    thread = in_background(lambda: control.run_control_loop(callback))
    assert supervisor.ask(operation="ping").message == {"id": 1}
    assert supervisor.ask(operation="describe").message["version"] == 5
    assert supervisor.ask(operation="orthography", segment="a").message["orthography"] == "one two "
    answer = supervisor.ask(operation="automaton", orthography="one ")
    assert answer.message["error"] == {
        "kind": "failed",
        "message": "unknown command export_allophone_state_fsa_by_orthography",
    }
    assert "no operation 'dance'" in supervisor.ask(operation="dance").message["error"]["message"]
    assert thread.is_alive()
    supervisor.frames.send({"operation": "exit"})
    thread.join(5)
    assert not thread.is_alive()
    control.exit()


def test_what_an_exception_becomes() -> None:
    def callback(command: str, *arguments: Any) -> Any:
        raise {"unknown": KeyError("unknown segment name 'x'"), "value": ValueError()}[arguments[-1]]

    answers = AutomataAnswers(callback)
    for segment, kind in (("unknown", "unknown_segment"), ("value", "failed")):
        answer = answers.answer(Frame({"operation": "alignment", "cache": "c", "segment": segment}, {}))
        assert answer.message["error"]["kind"] == kind


@pytest.mark.parametrize(
    ("segment", "loss", "kind", "message"),
    [
        ("a", (1.5, np.ones((2, 4))), None, ""),
        ("b", (1.5, np.ones((2, 4))), "failed", "Sprint computes 'b', asked for was 'a'"),
        ("a", (None, None), "skipped", "Sprint discarded the segment"),
        ("a", (1.5, None), "failed", "Sprint's criterion gives no error signal"),
        ("a", RuntimeError("no idea"), "failed", "RuntimeError: no idea"),
        (None, None, "skipped", "Sprint went on to the next segment without a loss for this one"),
    ],
)
def test_a_walk_through_the_corpus(
    supervisor: Supervisor, segment: str | None, loss: Any, kind: str | None, message: str
) -> None:
    asked: list[dict[str, Any]] = []

    def callback(command: str, **arguments: Any) -> Any:
        asked.append(arguments)
        if isinstance(loss, Exception):
            raise loss
        return loss

    # Sprint may ask for the order of segments before it makes the control object.
    order = getSegmentList(corpusName="toy", segmentList=["a"], config=supervisor.config)
    walked: list[str] = []

    def walk() -> None:
        control = None
        for name in order:
            walked.append(name)
            control = control or init(config=supervisor.config, callback=callback)
            if segment is not None:
                control.process_segment(name=segment, orthography="ä ".encode(), features=None)

    thread = in_background(walk)
    assert supervisor.ask(operation="describe").message == {"loop": "corpus", "id": 1}
    answers: list[Frame] = []
    waiting = in_background(lambda: answers.append(supervisor.ask(operation="loss", segment="a")))
    waiting.join(5)
    (frame,) = answers
    if kind is None:
        assert float(frame.arrays["loss"]) == 1.5
        np.testing.assert_array_equal(frame.arrays["signal"], np.ones((4, 2)))
        np.testing.assert_array_equal(asked[0]["posteriors"], SCORES.T)
        assert asked[0]["orthography"] == "ä "
        assert asked[0]["output_error_type"] == "error-signal"
    else:
        assert frame.message["error"] == {"kind": kind, "message": message}
    assert walked == ["a"]
    assert "no operation 'automaton'" in supervisor.ask(operation="automaton").message["error"]["message"]
    supervisor.channel.close()
    thread.join(5)
    assert not thread.is_alive()


def test_the_layer_between_segments(supervisor: Supervisor) -> None:
    with pytest.raises(RuntimeError, match="hasn't called init or getSegmentList"):
        SprintNnPythonLayer("").forward((np.zeros((3, 4)),))
    init(config=supervisor.config)
    layer = SprintNnPythonLayer(config=supervisor.config)
    layer.setInputDimension(0, 3)
    layer.setOutputDimension(2)
    assert layer.isTrainable()
    assert layer.getNumberOfFreeParameters() == 0
    np.testing.assert_array_equal(layer.forward((np.zeros((3, 4)),)), np.zeros((2, 4)))
    (signal,) = layer.backpropagate(np.ones((2, 4)))
    assert signal.shape == (3, 4)


@pytest.mark.parametrize("config", ["", "c2p_fd:3", "c2p_fd:3,p2c_fd:x"])
def test_a_configuration_without_pipes(config: str) -> None:
    with pytest.raises(ValueError, match=r"must have (c2p|p2c)_fd, a file descriptor"):
        init(config=config)
