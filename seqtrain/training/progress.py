"""Progress that a person can watch and a log file can bear."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from seqtrain.errors import MissingDependencyError

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["Console", "Progress"]


def _seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


class Progress:
    """One running task: a bar with the time left on a terminal, otherwise a plain line every `every`
    seconds."""

    def __init__(self, name: str, *, total: int, start: int = 0, stream: TextIO, every: float) -> None:
        self.name = name
        self.total = total
        self.start = start
        self.done = start
        self._stream = stream
        self._every = every
        self._begun = self._said = time.monotonic()
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Progress:
        if self._stream.isatty():
            self._bar = _rich_progress(self._stream)
            self._task = self._bar.add_task(self.name, total=self.total, completed=self.start, note="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, note: str = "") -> None:
        """`done` of `total` is finished; `note` is shown beside it."""
        self.done = done
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if now - self._said >= self._every or done == self.total:
            self._said = now
            passed = now - self._begun
            rate = (done - self.start) / passed if passed > 0 else 0.0
            left = f", {_seconds((self.total - done) / rate)} left" if rate > 0 and done < self.total else ""
            self._stream.write(
                f"{self.name}: {done}/{self.total} after {_seconds(passed)}{left}  {note}".rstrip() + "\n"
            )
            self._stream.flush()


class Console:
    """Where a run speaks: plain lines, and at most one progress at a time."""

    def __init__(self, stream: TextIO | None = None, *, every: float = 10.0) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._every = every

    def say(self, text: str) -> None:
        """Writes a line."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    @contextmanager
    def progress(self, name: str, *, total: int, start: int = 0) -> Iterator[Progress]:
        """Shows how far a task is: a bar on a terminal, otherwise a line now and then."""
        with Progress(name, total=total, start=start, stream=self._stream, every=self._every) as progress:
            yield progress


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
