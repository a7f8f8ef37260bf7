"""Automata, alignments, losses and errors of single items in frames: what workers write and supervisors read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import (
    EngineError,
    Infeasible,
    InfeasibleError,
    OutOfVocabularyError,
    SeqtrainError,
    SkippedError,
    UnknownSegmentError,
)
from seqtrain.fsa import Fsa
from sprint_bridge.workers.errors import WorkerFailedError
from sprint_bridge.workers.frames import Frame
from sprint_bridge.workers.loop import failure

__all__ = [
    "Automaton",
    "ItemLoss",
    "array_of",
    "automaton_frame",
    "check_labels",
    "error_frame",
    "integer_of",
    "labels_frame",
    "loss_frame",
    "raise_error",
    "read_automaton",
    "read_labels",
    "read_loss",
]


class Automaton(NamedTuple):
    """The numbers of an automaton, as those of `Fsa`; whether they make one isn't said yet.

    Many of them are checked at once, when they become a batch: one by one that takes longer than the engine itself.
    """

    num_states: int
    start: int
    arcs: NDArray[np.int32]
    weights: NDArray[np.floating[Any]]
    final_states: NDArray[np.int32]
    final_weights: NDArray[np.floating[Any]]


class ItemLoss(NamedTuple):
    """A loss, and its error signal (T, V) float32."""

    loss: float
    signal: NDArray[np.float32]


def array_of(frame: Frame, name: str, dtypes: tuple[str, ...], shape: tuple[int | None, ...]) -> NDArray[Any]:
    """An array of an answer; None in `shape` stands for any length.

    Raises:
        WorkerFailedError: there is none, or it is of another dtype or shape: the worker answers nonsense.
    """
    array = frame.arrays.get(name)
    if array is None:
        raise WorkerFailedError(f"the answer has no array {name!r}")
    fits = array.ndim == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(array.shape, shape, strict=True)
    )
    if array.dtype.name not in dtypes or not fits:
        raise WorkerFailedError(f"the answer's {name!r} is an array of {array.dtype}, shape {array.shape}")
    return array


def integer_of(frame: Frame, name: str) -> int:
    """A number of states, or of one, in an answer; raises WorkerFailedError where there is none."""
    value = frame.message.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise WorkerFailedError(f"the answer's {name!r} is {value!r:.40}")
    return value


def automaton_frame(fsa: Fsa) -> Frame:
    """The answer that is an automaton."""
    return Frame(
        {"num_states": fsa.num_states, "start": fsa.start},
        {
            "arcs": fsa.arcs.numpy(),
            "weights": fsa.weights.detach().numpy(),
            "final_states": fsa.final_states.numpy(),
            "final_weights": fsa.final_weights.detach().numpy(),
        },
    )


def read_automaton(frame: Frame, *, segment: str, num_labels: int) -> Automaton:
    """The automaton of an answer.

    Raises:
        EngineError: it has labels that the inventory lacks.
        WorkerFailedError: the answer has none.
    """
    weights = array_of(frame, "weights", ("float32", "float64"), (None,))
    final_states = array_of(frame, "final_states", ("int32",), (None,))
    automaton = Automaton(
        num_states=integer_of(frame, "num_states"),
        start=integer_of(frame, "start"),
        arcs=array_of(frame, "arcs", ("int32",), (len(weights), 3)),
        weights=weights,
        final_states=final_states,
        final_weights=array_of(frame, "final_weights", ("float32", "float64"), (len(final_states),)),
    )
    check_labels(automaton, segment=segment, num_labels=num_labels)
    return automaton


def check_labels(automaton: Automaton, *, segment: str, num_labels: int) -> None:
    """Raises EngineError where an automaton has labels that the inventory lacks."""
    if len(automaton.arcs) and int(automaton.arcs[:, 2].max()) >= num_labels:
        raise EngineError(
            f"the engine's automaton has the label {int(automaton.arcs[:, 2].max())}, and the inventory has "
            f"{num_labels}; labels and state tying don't belong together",
            segment=segment,
        )


def labels_frame(labels: NDArray[np.int32]) -> Frame:
    """The answer that is an alignment: (T,) the label of each frame."""
    return Frame({}, {"labels": labels})


def read_labels(frame: Frame, *, segment: str, num_labels: int) -> NDArray[np.int32]:
    """The labels (T,) of an answer.

    Raises:
        EngineError: a label isn't one of `num_labels`.
        WorkerFailedError: the answer has none.
    """
    labels = array_of(frame, "labels", ("int32",), (None,))
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < num_labels:
        raise EngineError(
            f"the engine's alignment has labels {labels.min()} … {labels.max()}, the inventory has {num_labels}",
            segment=segment,
        )
    return labels


def loss_frame(loss: float, signal: NDArray[np.float32]) -> Frame:
    """The answer that is a loss and its error signal."""
    return Frame({}, {"loss": np.array(loss, dtype=np.float64), "signal": signal})


def read_loss(frame: Frame, *, segment: str, shape: tuple[int, ...]) -> ItemLoss:
    """The loss of an answer, for scores of `shape`.

    Raises:
        EngineError: it isn't finite.
        WorkerFailedError: the answer has none of that shape.
    """
    loss = float(array_of(frame, "loss", ("float64",), ()))
    signal = array_of(frame, "signal", ("float32",), shape)
    if not math.isfinite(loss) or not np.isfinite(signal).all():
        raise EngineError(f"the engine's loss ({loss}) or error signal isn't finite", segment=segment)
    return ItemLoss(loss, signal)


def error_frame(error: SeqtrainError) -> Frame:
    """The answer that says what is wrong with an item."""
    if isinstance(error, OutOfVocabularyError):
        return failure("out_of_vocabulary", str(error), words=list(error.words))
    if isinstance(error, UnknownSegmentError):
        return failure("unknown_segment", str(error))
    if isinstance(error, InfeasibleError) and error.utterances:
        item = error.utterances[0]
        return failure("infeasible", item.reason, frames=item.frames, frames_needed=item.frames_needed)
    return failure("skipped" if isinstance(error, SkippedError) else "failed", str(error))


def raise_error(frame: Frame, *, segment: str) -> None:
    """Raises what an answer says is wrong with its item, if anything.

    Raises:
        OutOfVocabularyError, UnknownSegmentError, InfeasibleError, SkippedError, EngineError: as the answer says.
        WorkerFailedError: it says that in no known way.
    """
    error = frame.message.get("error")
    if error is None:
        return
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        raise WorkerFailedError(f"the answer has the error {error!r:.80}")
    kind, message = error.get("kind"), error["message"]
    if kind == "out_of_vocabulary" and isinstance(error.get("words"), list):
        raise OutOfVocabularyError(message, words=tuple(map(str, error["words"])), utterance=segment)
    if kind == "unknown_segment":
        raise UnknownSegmentError(message, utterance=segment)
    if kind == "infeasible":
        raise InfeasibleError([_infeasible(error, segment)])
    if kind == "skipped":
        raise SkippedError(message, segment=segment)
    if kind == "failed":
        raise EngineError(message, segment=segment)
    raise WorkerFailedError(f"the answer has an error of the kind {kind!r:.40}")


def _infeasible(error: Mapping[str, Any], segment: str) -> Infeasible:
    frames, needed = error.get("frames"), error.get("frames_needed")
    if not isinstance(frames, int) or not isinstance(needed, int | None):
        raise WorkerFailedError(f"the answer has the error {error!r:.80}")
    return Infeasible(0, segment, frames, needed, error["message"])
