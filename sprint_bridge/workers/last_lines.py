"""The last lines that a process has printed."""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path

__all__ = ["LastLines"]

_LINES = 20
_LINE_BYTES = 1000


class LastLines:
    """Reads what a process prints into a pipe, for as long as somebody can print there, and keeps its end.

    A process that prints without end blocks nobody and fills nothing, the file aside that was asked for.

    Args:
        descriptor: of the pipe; closed when it has ended.
        log: file that all of it is appended to, or None. It ends where that can't be written any more.

    Raises:
        OSError: the log can't be opened; the descriptor is still open.
    """

    def __init__(self, descriptor: int, log: Path | None) -> None:
        self._descriptor = descriptor
        self._log = (
            None
            if log is None
            else os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        )
        self._lines: deque[bytes] = deque(maxlen=_LINES)
        self._open_line = b""
        self._thread = threading.Thread(target=self._read, name="worker-output", daemon=True)
        self._thread.start()

    def text(self, seconds: float) -> str:
        """The last lines; what is still on its way is waited for, at most so long."""
        self._thread.join(seconds)
        kept = [*self._lines, self._open_line]
        return "\n".join(line.decode("utf-8", errors="replace") for line in kept[-_LINES:] if line.strip())

    def _read(self) -> None:
        try:
            while chunk := os.read(self._descriptor, 65536):
                self._write(chunk)
                *lines, rest = (self._open_line + chunk).split(b"\n")
                self._lines.extend(line[:_LINE_BYTES] for line in lines[-_LINES:])
                self._open_line = rest[:_LINE_BYTES]
        finally:
            os.close(self._descriptor)
            self._close_log()

    def _write(self, chunk: bytes) -> None:
        if self._log is None:
            return
        try:
            os.write(self._log, chunk)
        except OSError:
            # A full disk must not stop the worker, whose output somebody has to read.
            self._close_log()

    def _close_log(self) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None
