"""Progress that a person can watch and a log file can bear."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from seqtrain.errors import MissingDependencyError

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["Console", "Progress"]


class Progress:
    """How far a task is; here nobody is told."""

    def __init__(self, name: str, *, total: int, start: int = 0) -> None:
        self.name = name
        self.total = total
        self.start = start
        self.done = start

    def update(self, done: int, note: str = "") -> None:
        """`done` of `total` is finished; `note` is shown beside it."""
        self.done = done


class Console:
    """Where a run speaks: lines of text, and the progress of any number of tasks at a time.

    On a terminal a task is a bar with the time left, otherwise a plain line every `every` seconds.
    """

    def __init__(self, stream: TextIO | None = None, *, every: float = 10.0) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._every = every
        self._bars: RichProgress | None = None
        self._open = 0

    def say(self, text: str) -> None:
        """Writes a line."""
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
            return
        self._stream.write(f"{text}\n")
        self._stream.flush()

    @contextmanager
    def progress(self, name: str, *, total: int, start: int = 0) -> Iterator[Progress]:
        """Shows how far a task is until the context ends."""
        if not self._stream.isatty():
            yield _Lines(name, total=total, start=start, stream=self._stream, every=self._every)
            return
        # All bars are one display: two displays would write over each other.
        if self._bars is None:
            self._bars = _rich_progress(self._stream)
            self._bars.start()
        bars = self._bars
        self._open += 1
        try:
            yield _Bar(name, total=total, start=start, bars=bars)
        finally:
            self._open -= 1
            if self._open == 0:
                bars.stop()
                self._bars = None


class _Lines(Progress):
    def __init__(self, name: str, *, total: int, start: int, stream: TextIO, every: float) -> None:
        super().__init__(name, total=total, start=start)
        self._stream = stream
        self._every = every
        self._begun = self._said = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        super().update(done, note)
        now = time.monotonic()
        if now - self._said < self._every and done != self.total:
            return
        self._said = now
        passed = now - self._begun
        rate = (done - self.start) / passed if passed > 0 else 0.0
        left = f", {_clock((self.total - done) / rate)} left" if rate > 0 and done < self.total else ""
        line = f"{self.name}: {done}/{self.total} after {_clock(passed)}{left}  {note}"
        self._stream.write(line.rstrip() + "\n")
        self._stream.flush()


class _Bar(Progress):
    def __init__(self, name: str, *, total: int, start: int, bars: RichProgress) -> None:
        super().__init__(name, total=total, start=start)
        self._bars = bars
        self._task: TaskID = bars.add_task(name, total=total, completed=start, note="")

    def update(self, done: int, note: str = "") -> None:
        super().update(done, note)
        self._bars.update(self._task, completed=done, note=note)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _rich_progress(stream: TextIO) -> RichProgress:
    try:
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgressBar
    except ImportError as error:
        raise MissingDependencyError("rich", extra="recipes") from error
    return RichProgressBar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=RichConsole(file=stream),
    )
