"""Where the supervisor's requests for losses meet Sprint's walk through its corpus.

One thread answers the supervisor: it puts in a segment with its scores and waits. The other is Sprint's: it takes
the segment as the next of its corpus, computes, and puts in loss and signal. A segment that Sprint leaves without a
word, because it goes on to the next, was skipped.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from sprint_bridge.workers.frames import Frame
from sprint_bridge.workers.loop import failure

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["Exchange"]


class Exchange:
    """One request at a time, handed from one thread to the other."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._segment: str | None = None
        self._scores: Any = None
        self._taken = False
        self._signal: Any = None
        self._loss: float | None = None
        self._answer: Frame | None = None
        self._closed = False

    # ---- The supervisor's side ----

    def compute(self, segment: str, scores: NDArray[Any]) -> Frame:
        """Hands a segment with scores (T, V) to Sprint; the answer."""
        with self._changed:
            self._segment, self._scores = segment, scores
            self._taken = False
            self._signal = self._loss = self._answer = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._answer is not None or self._closed)
            answer = self._answer
            self._segment = self._scores = None
        return failure("failed", "Sprint has come to the end of its corpus") if answer is None else answer

    def close(self) -> None:
        """No more requests come: Sprint's corpus ends."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # ---- Sprint's side ----

    def next_segment(self) -> str | None:
        """The segment that Sprint is to go on with, None at the end."""
        with self._changed:
            if self._taken and self._answer is None:
                self._put(
                    failure("skipped", "Sprint went on to the next segment without a loss for this one")
                )
            self._changed.wait_for(lambda: (self._segment is not None and not self._taken) or self._closed)
            if self._closed:
                return None
            self._taken = True
            return self._segment

    def scores_of(self, segment: str | None = None) -> NDArray[Any] | None:
        """The scores (T, V) of the segment that Sprint has taken; None where that has been answered.

        None as well where Sprint is at another `segment`, which the supervisor is told.
        """
        with self._changed:
            if not self._taken or self._answer is not None:
                return None
            if segment is not None and segment != self._segment:
                self._put(failure("failed", f"Sprint computes {segment!r}, asked for was {self._segment!r}"))
                return None
            return self._scores  # type: ignore[no-any-return]  # an array

    def put_signal(self, signal: NDArray[Any]) -> None:
        """The error signal (T, V)."""
        with self._changed:
            self._signal = signal
            self._complete()

    def put_loss(self, loss: float) -> None:
        """The loss."""
        with self._changed:
            self._loss = loss
            self._complete()

    def fail(self, kind: str, message: str) -> None:
        """What is wrong with the segment."""
        with self._changed:
            self._put(failure(kind, message))

    def _complete(self) -> None:
        if self._loss is None or self._signal is None:
            return
        self._put(
            Frame(
                {},
                {
                    "loss": np.array(self._loss, dtype=np.float64),
                    "signal": np.ascontiguousarray(self._signal, dtype=np.float32),
                },
            )
        )

    def _put(self, answer: Frame) -> None:
        if self._taken and self._answer is None:
            self._answer = answer
            self._changed.notify_all()
