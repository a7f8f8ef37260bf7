"""Automata and cached alignments from Sprint's native callback."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from sprint_bridge.workers.frames import Frame
from sprint_bridge.workers.loop import failure

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["AutomataAnswers"]

_BY_SEGMENT = "export_allophone_state_fsa_by_segment_name"
_BY_ORTHOGRAPHY = "export_allophone_state_fsa_by_orthography"


class AutomataAnswers:
    """Answers requests by Sprint's callback, as long as Sprint lets us have the control loop."""

    def __init__(self, callback: Callable[..., Any]) -> None:
        self._callback = callback

    def answer(self, request: Frame) -> Frame:
        """The answer to a request. KeyError and ValueError are how Sprint says what is wrong with an item."""
        message = request.message
        operation = message.get("operation")
        try:
            if operation == "describe":
                return self._description(message)
            if operation == "automaton":
                return self._automaton(message)
            if operation == "orthography":
                return Frame({"orthography": self._orthography(message["segment"])}, {})
            if operation == "alignment":
                labels = self._callback("get_alignment_from_cache", message["cache"], message["segment"])
                return Frame({}, {"states": np.asarray(labels, dtype=np.uint32)})
        except (KeyError, ValueError) as error:
            text = str(error.args[0]) if error.args else repr(error)
            return failure("unknown_segment" if "unknown segment" in text else "failed", text)
        return failure("failed", f"there is no operation {operation!r} in Sprint's control loop")

    def _description(self, message: dict[str, Any]) -> Frame:
        # What automata look like is best told by one.
        digest = hashlib.sha256()
        for orthography in message.get("probes", []):
            num_states, _, edges, costs = self._callback(_BY_ORTHOGRAPHY, orthography)
            digest.update(str(int(num_states)).encode("ascii"))
            digest.update(np.asarray(edges, dtype="<u4").tobytes())
            digest.update(np.asarray(costs, dtype="<f4").tobytes())
        version = int(self._callback("version_number"))
        return Frame({"loop": "control", "version": version, "probes": digest.hexdigest()}, {})

    def _automaton(self, message: dict[str, Any]) -> Frame:
        answer: dict[str, Any] = {}
        if "orthography" in message:
            exported = self._callback(_BY_ORTHOGRAPHY, message["orthography"])
        else:
            if message.get("with_orthography"):
                answer["orthography"] = self._orthography(message["segment"])
            exported = self._callback(_BY_SEGMENT, message["segment"])
        num_states, _, edges, costs = exported
        answer["num_states"] = int(num_states)
        return Frame(
            answer,
            {
                "edges": np.asarray(edges, dtype=np.uint32).reshape(-1),
                "costs": np.asarray(costs, dtype=np.float32),
            },
        )

    def _orthography(self, segment: str) -> str:
        text = self._callback("get_orthography_by_segment_name", segment)
        return text.decode("utf-8") if isinstance(text, bytes) else str(text)
