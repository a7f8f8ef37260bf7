"""Stands in for RETURNN's control module: the same messages, by Python's own pickle, and some that nobody should send.

Tests install it as `returnn/sprint/control.py`. Over a segment it does what the stand-in for Sprint is told to, or what
its name says.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
from typing import Any

import numpy as np
from returnn.util.task_system import make_numpy_ndarray_fromstring  # type: ignore[import-not-found]


class Pickler(pickle._Pickler):  # type: ignore[name-defined]  # the one in Python, whose arrays can be told how to go
    dispatch_table = {  # noqa: RUF012  # as pickle has it
        np.ndarray: lambda array: (
            make_numpy_ndarray_fromstring,
            (array.tobytes(), str(array.dtype), array.shape),
        )
    }


class Evil:
    def __reduce__(self) -> Any:
        return os.system, (f"touch {os.environ['EVIL']}",)


class PythonControl:
    def __init__(self, config: str) -> None:
        options = dict(part.split(":", 1) for part in config.split(","))
        self.reads = os.fdopen(int(options["p2c_fd"]), "rb", 0)
        self.writes = os.fdopen(int(options["c2p_fd"]), "wb", 0)

    def send(self, message: Any) -> None:
        stream = io.BytesIO()
        Pickler(stream, pickle.HIGHEST_PROTOCOL).dump(message)
        self.writes.write(struct.pack("<i", len(stream.getvalue())) + stream.getvalue())

    def receive(self) -> Any:
        prefix = self.reads.read(4)
        if not prefix:
            raise SystemExit
        (length,) = struct.unpack("<i", prefix)
        content = b""
        while len(content) < length:
            content += self.reads.read(length - len(content))
        return pickle.loads(content)

    def run_control_loop(self, callback: Any, **_: Any) -> None:
        while True:
            command, *arguments = self.receive()
            if command == "exit":
                raise SystemExit
            try:
                self.send(self.answer(callback, command, arguments))
            except (KeyError, ValueError) as error:
                self.send(("exception", str(error)))

    def answer(self, callback: Any, command: str, arguments: list[Any]) -> Any:
        if command == "init":
            return ("ok", "SprintControl", int(os.environ.get("VERSION", "1")))
        segment = arguments[0]
        if segment == "evil":
            return ("ok", Evil())
        if segment == "length":
            self.writes.write(struct.pack("<i", -5))
        if segment == "short":
            return ("ok", 1)
        if command == "get_loss_and_error_signal":
            _, frames, scores = arguments
            assert scores.shape == (frames, 34)
            assert scores.dtype == np.float32
            if segment == "skipped":
                return ("ok", float("inf"), np.zeros_like(scores))
            return ("ok", np.float32(scores.sum()), 2 * scores)
        return ("ok", *callback(command, segment))

    def exit(self, **_: Any) -> None:
        pass


def init(config: str, **_: Any) -> PythonControl:
    return PythonControl(config)
