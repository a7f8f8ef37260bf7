"""An engine in this process, behind frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import EngineError, SeqtrainError
from seqtrain.lexicon import LabelInventory
from sprint_bridge.backends.base import Backend, Orthography, Segment
from sprint_bridge.workers.frames import Frame
from sprint_bridge.workers.items import automaton_frame, error_frame, labels_frame, loss_frame

__all__ = ["answer_request", "describe"]


def describe(backend: Backend) -> dict[str, Any]:
    """What an engine says about itself; `PooledBackend` reads it."""
    inventory: LabelInventory = backend.inventory
    return {
        "engine": backend.name,
        "capabilities": sorted(capability.value for capability in backend.capabilities),
        "config_digest": backend.config_digest,
        "labels": list(inventory.labels),
        "silence": inventory.silence,
        "blank": inventory.blank,
    }


def answer_request(backend: Backend, request: Frame) -> Frame:
    """The engine's answer to a request for one item."""
    try:
        return _answer(backend, request)
    except SeqtrainError as error:
        return error_frame(error)


def _answer(backend: Backend, request: Frame) -> Frame:
    message = request.message
    operation = message["operation"]
    if operation == "automaton":
        item = (
            Orthography(message["orthography"]) if "orthography" in message else Segment(message["segment"])
        )
        automata = backend.automata([item])
        _raise(automata.errors)
        return automaton_frame(automata.automata[0])
    segment = message["segment"]
    if operation == "alignment":
        alignments = backend.alignments([segment])
        _raise(alignments.errors)
        return labels_frame(alignments.labels[0])
    if operation == "align":
        alignments = backend.align([segment], [_scores(request)])
        _raise(alignments.errors)
        return labels_frame(alignments.labels[0])
    if operation == "loss":
        losses = backend.losses([segment], [_scores(request)])
        _raise(losses.errors)
        return loss_frame(float(losses.losses[0]), losses.signals[0])
    raise EngineError(f"the engine knows no operation {operation!r}", segment=segment)


def _scores(request: Frame) -> NDArray[np.float32]:
    return request.arrays["scores"]


def _raise(errors: tuple[SeqtrainError | None, ...]) -> None:
    if errors[0] is not None:
        raise errors[0]
