"""The functions of the module that Sprint calls."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from sprint_bridge.sprint_control.automata import AutomataAnswers
from sprint_bridge.sprint_control.session import Session, session_of
from sprint_bridge.workers.frames import Frame
from sprint_bridge.workers.loop import answer_frames, failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["Control", "getSegmentList", "init"]


def init(
    name: str = "",
    reference: Any = None,
    config: str = "",
    sprint_unit: str | None = None,
    version_number: int | None = None,
    callback: Callable[..., Any] | None = None,
    **_: Any,
) -> Control:
    """Called by Sprint at its start; the object whose methods it calls from then on."""
    session = session_of(config)
    session.version = version_number
    return Control(session, callback)


def getSegmentList(  # noqa: N802  # the name is Sprint's
    corpusName: str = "",  # noqa: N803
    segmentList: Any = None,  # noqa: N803
    segmentsInfo: Any = None,  # noqa: N803
    config: str = "",
    **_: Any,
) -> Iterator[str]:
    """Called by Sprint where it walks through its corpus: the segments that the supervisor asks for, one by one."""
    session = session_of(config)
    threading.Thread(target=_answer_losses, args=(session,), name="supervisor", daemon=True).start()
    while True:
        segment = session.exchange.next_segment()
        if segment is None:
            return
        yield segment


def _answer_losses(session: Session) -> None:
    def handle(request: Frame) -> Frame:
        operation = request.message.get("operation")
        if operation == "describe":
            return Frame({"loop": "corpus"}, {})
        if operation == "loss":
            return session.exchange.compute(request.message["segment"], request.arrays["scores"])
        return failure("failed", f"there is no operation {operation!r} where Sprint walks through its corpus")

    try:
        answer_frames(session.channel, handle)
    finally:
        session.exchange.close()


class Control:
    """The object whose methods Sprint calls."""

    def __init__(self, session: Session, callback: Callable[..., Any] | None) -> None:
        self._session = session
        self._callback = callback

    def run_control_loop(self, callback: Callable[..., Any], **_: Any) -> None:
        """Sprint has nothing of its own to do: answers requests until the supervisor has no more."""
        answer_frames(self._session.channel, AutomataAnswers(callback).answer)

    def init_processing(self, input_dim: int = -1, output_dim: int = -1, **_: Any) -> None:
        """Sprint begins to walk through its corpus."""

    def process_segment(
        self,
        name: str = "",
        orthography: Any = None,
        speaker_name: Any = None,
        features: Any = None,
        alignment: Any = None,
        soft_alignment: Any = None,
        **_: Any,
    ) -> None:
        """Sprint is at a segment: has it compute its criterion from the supervisor's scores."""
        exchange = self._session.exchange
        scores = exchange.scores_of(name)
        if scores is None:
            return
        if self._callback is None:
            exchange.fail("failed", "Sprint gave no callback to compute with")
            return
        try:
            loss, signal = self._criterion(name, orthography, scores)
        except Exception as error:  # Sprint would end the process over it
            exchange.fail("failed", f"{type(error).__name__}: {error}")
            return
        if loss is None:
            exchange.fail("skipped", "Sprint discarded the segment")
            return
        if signal is None:
            exchange.fail("failed", "Sprint's criterion gives no error signal")
            return
        exchange.put_loss(float(loss))
        exchange.put_signal(signal.T)

    def init_segment(self, segment_name: str, **_: Any) -> None:
        """Sprint is at a segment whose scores it asks the layer for."""

    def notify_segment_loss(self, segment_name: str, loss: float, **_: Any) -> None:
        """Sprint has the loss of a segment whose error signal went to the layer."""
        if self._session.exchange.scores_of(segment_name) is not None:
            self._session.exchange.put_loss(float(loss))

    def exit(self, **_: Any) -> None:
        """Sprint ends."""
        self._session.exchange.close()

    def _criterion(self, name: str, orthography: Any, scores: NDArray[Any]) -> tuple[Any, Any]:
        if self._callback is None:
            raise RuntimeError("there is no callback")
        # Sprint hands out bytes, and takes nothing but str back.
        text = orthography.decode("utf-8") if isinstance(orthography, bytes) else orthography
        result: tuple[Any, Any] = self._callback(
            "calculate_criterion",
            posteriors=np.ascontiguousarray(scores.T),
            orthography=text,
            output_error_type="error-signal",
            segment_name=name,
        )
        return result
