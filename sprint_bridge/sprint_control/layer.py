"""The network layer that Sprint takes the scores of a segment from, and gives the error signal of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sprint_bridge.sprint_control.session import current_session

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["SprintNnPythonLayer"]


class SprintNnPythonLayer:
    """A layer without parameters whose output is what the supervisor sent, whatever comes in.

    It is made by Sprint; the methods and their spelling are Sprint's. Matrices there are (dimension, time).
    """

    def __init__(self, config: str = "", **_: Any) -> None:
        self._inputs: dict[int, int] = {}
        self._output = 0
        self._num_frames = 0

    def setInputDimension(self, stream: int, size: int) -> None:  # noqa: N802
        """Sprint says how large the inputs are."""
        self._inputs[stream] = size

    def setOutputDimension(self, size: int) -> None:  # noqa: N802
        """Sprint says how many labels it expects."""
        self._output = size

    def initializeNetworkParameters(self) -> None:  # noqa: N802
        """There are none."""

    def loadNetworkParameters(self, filename: str) -> None:  # noqa: N802
        """There are none."""

    def saveNetworkParameters(self, filename: str) -> None:  # noqa: N802
        """There are none."""

    def isTrainable(self) -> bool:  # noqa: N802
        """Yes: only then does Sprint propagate the error back to it."""
        return True

    def getNumberOfFreeParameters(self) -> int:  # noqa: N802
        """None."""
        return 0

    def forward(self, input: tuple[NDArray[Any], ...]) -> NDArray[np.float32]:
        """The scores (V, T) of the segment that Sprint is at; zeros where it has others' frames or labels.

        The item's caller is told of that; an exception would end the process.
        """
        frames = input[0].shape[1]
        exchange = current_session().exchange
        scores = exchange.scores_of()
        expected = (frames, self._output or (0 if scores is None else scores.shape[1]))
        if scores is not None and scores.shape != expected:
            exchange.fail("failed", f"scores are {scores.shape}, Sprint needs {expected} (frames, labels)")
            scores = None
        if scores is None:
            return np.zeros(expected[::-1], dtype=np.float32)
        return np.ascontiguousarray(scores.T, dtype=np.float32)

    def backpropagate(self, errorSignalIn: NDArray[Any]) -> tuple[NDArray[Any], ...]:  # noqa: N803
        """Takes the error signal (V, T) of the scores; there is nothing to hand on to the input."""
        exchange = current_session().exchange
        if exchange.scores_of() is not None:
            exchange.put_signal(np.array(errorSignalIn.T, dtype=np.float32))
        size = self._inputs.get(0, 0)
        return (np.zeros((size, errorSignalIn.shape[1]), dtype=np.float32),)

    def finalize(self) -> None:
        """Sprint ends a batch."""
