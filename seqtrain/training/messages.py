"""What a stage in a process of its own tells the run that started it: one JSON object a line.

{"say": text}
{"open": name, "total": n, "start": n}   {"update": name, "done": n, "note": text}   {"close": name}
{"result": values}                       the stage has ended well; the last line
{"error": class, "message": text, "fields": values}   it has not; the last line
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from seqtrain import errors
from seqtrain.errors import SeqtrainError
from seqtrain.training.progress import Console, Progress

__all__ = ["RelayConsole", "describe_error", "revive_error", "send"]


def send(stream: TextIO, message: dict[str, Any]) -> None:
    """Writes a message, at once."""
    stream.write(json.dumps(message, default=str) + "\n")
    stream.flush()


class RelayConsole(Console):
    """A console whose lines and progress go into messages."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._messages = stream

    def say(self, text: str) -> None:
        send(self._messages, {"say": text})

    @contextmanager
    def progress(self, name: str, *, total: int, start: int = 0) -> Iterator[Progress]:
        send(self._messages, {"open": name, "total": total, "start": start})
        yield _RelayProgress(name, total=total, start=start, stream=self._messages)
        send(self._messages, {"close": name})


class _RelayProgress(Progress):
    def __init__(self, name: str, *, total: int, start: int, stream: TextIO) -> None:
        super().__init__(name, total=total, start=start)
        self._stream = stream

    def update(self, done: int, note: str = "") -> None:
        super().update(done, note)
        send(self._stream, {"update": self.name, "done": done, "note": note})


def describe_error(error: SeqtrainError) -> dict[str, Any]:
    """An error as a message."""
    return {"error": type(error).__name__, "message": str(error), "fields": vars(error)}


def revive_error(message: dict[str, Any]) -> SeqtrainError:
    """The error that `describe_error` described: same class, same message, same fields (lists for tuples)."""
    kind = getattr(errors, message["error"], SeqtrainError)
    # Each class asks for arguments of its own; what they became is in the message.
    error = kind.__new__(kind)
    Exception.__init__(error, message["message"])
    vars(error).update(message["fields"])
    return error if isinstance(error, SeqtrainError) else SeqtrainError(message["message"])
