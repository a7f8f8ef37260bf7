"""One worker: a process, and requests to it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from sprint_bridge.workers import guard
from sprint_bridge.workers.errors import EngineMissingError, EngineStartError, WorkerFailedError
from sprint_bridge.workers.frames import (
    ByteChannel,
    ChannelClosedError,
    ChannelTimeoutError,
    Frame,
    FrameChannel,
    FrameError,
    FrameLimits,
)
from sprint_bridge.workers.last_lines import LastLines

__all__ = ["ChildProcess", "Command", "ProcessWorker", "Worker", "WorkerProcess", "check_program"]

# What a dying process printed is there at once; only its own children can keep us waiting.
_LAST_LINES_SECONDS = 0.5
_END_SECONDS = 1.0


@dataclass(frozen=True)
class Command:
    """How a worker's program is called.

    Attributes:
        name: of the engine, for errors.
        arguments: program and arguments, given the file descriptors that the program reads and writes.
        environment: variables set besides those that this process has.
        log: file that what the program prints is appended to, or None.
    """

    name: str
    arguments: Callable[[int, int], Sequence[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None


class Worker(Protocol):
    """What a supervisor needs of a worker. One thread uses it; `kill` is for any thread."""

    def describe(self, *, deadline: float) -> Mapping[str, Any]:
        """Waits until it is ready, and gives what it says about itself: equal for equal instances.

        Raises:
            EngineStartError: it doesn't get ready.
        """

    def is_alive(self) -> bool:
        """Whether its process hasn't ended."""

    def request(
        self, message: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], *, deadline: float
    ) -> Frame:
        """The answer to a request.

        Raises:
            WorkerFailedError: it died, or didn't answer before the deadline, or answered nonsense.
        """

    def ping(self, *, deadline: float) -> None:
        """Raises WorkerFailedError where it doesn't answer before the deadline."""

    def kill(self) -> None:
        """Kills the process; who waits for an answer gets WorkerFailedError."""

    def stop(self, seconds: float) -> None:
        """Asks it to end, kills it after `seconds`, and lets go of all that it held."""

    def dispose(self) -> None:
        """Kills it and lets go of all that it held."""


class ChildProcess:
    """A program with a pipe in each direction, in a session of its own, which ends when this thread ends.

    Its stdin is empty; what it prints goes into the log, and the last lines into errors.

    Args:
        command: how it is called.

    Attributes:
        read_fd, write_fd: our ends of the pipes; whoever wraps them closes them.

    Raises:
        EngineStartError: the program is missing or can't be run.
    """

    def __init__(self, command: Command) -> None:
        self._name = command.name
        self._lock = threading.Lock()
        self._disposed = False
        self.read_fd, to_us = os.pipe()
        from_us, self.write_fd = os.pipe()
        printed, prints = os.pipe()
        ours = [self.read_fd, self.write_fd, printed]
        try:
            program = list(command.arguments(from_us, to_us))
            check_program(Path(program[0]), name=command.name)
            self._last_lines = LastLines(printed, command.log)
            ours.remove(printed)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), *program],
                stdin=subprocess.DEVNULL,
                stdout=prints,
                stderr=prints,
                pass_fds=(from_us, to_us),
                start_new_session=True,
                env={**os.environ, **command.environment},
            )
        except BaseException as error:
            for descriptor in ours:
                os.close(descriptor)
            if isinstance(error, OSError):
                raise EngineStartError(f"{command.name} can't be started: {error}") from error
            raise
        finally:
            for descriptor in (to_us, from_us, prints):
                os.close(descriptor)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether the process hasn't ended."""
        with self._lock:
            return not self._disposed and self._status() is None

    def kill(self) -> None:
        """Kills the process and those that it has started. Any thread may do that, at any time."""
        with self._lock:
            # Once it is disposed of, the number may be another process's.
            if not self._disposed:
                self._kill()

    def ends_within(self, seconds: float) -> bool:
        """Waits for the process to end."""
        end = time.monotonic() + seconds
        while self.is_alive():
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    def last_words(self) -> str:
        """How the process has ended, and what it printed last; for the end of a message."""
        self.ends_within(_END_SECONDS)  # a pipe closes a little before the process is gone
        with self._lock:
            status = None if self._disposed else self._status()
        if status is None:
            how = "; it still runs"
        elif status < 0:
            how = f"; killed by {signal.Signals(-status).name}"
        else:
            how = f"; ended with status {status}"
        said = self._last_lines.text(_LAST_LINES_SECONDS)
        return f"{how}; it said:\n{said}" if said else f"{how}, and said nothing"

    def dispose(self) -> None:
        """Kills what still runs, and collects the process."""
        with self._lock:
            if self._disposed:
                return
            # Its number is still its own, and so is that of its session: it is collected only afterwards.
            self._kill()
            self._disposed = True
        self._process.wait()

    def _kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)

    def _status(self) -> int | None:
        """The status as Popen gives it, None while it runs; leaves the process uncollected."""
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def check_program(program: Path, *, name: str) -> None:
    """Raises EngineStartError where `program` isn't the absolute path of a file that can be run."""
    if not program.is_absolute():
        raise EngineStartError(f"{name}: the program must be an absolute path, found {program}")
    if not program.is_file():
        raise EngineStartError(f"{name}: there is no program {program}")
    if not os.access(program, os.X_OK):
        raise EngineStartError(f"{name}: {program} may not be run (chmod +x)")


class ProcessWorker:
    """What all workers that are processes have in common, whatever they speak.

    Args:
        command: how the program is called.

    Raises:
        EngineStartError: the program is missing or can't be run.
    """

    def __init__(self, command: Command) -> None:
        self._name = command.name
        self._child = ChildProcess(command)
        self._channel = ByteChannel(self._child.read_fd, self._child.write_fd)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._child.pid

    def is_alive(self) -> bool:
        return self._child.is_alive()

    def kill(self) -> None:
        self._child.kill()

    def dispose(self) -> None:
        self._child.dispose()
        self._channel.close()

    def stop(self, seconds: float) -> None:
        with suppress(FrameError):  # it has ended already, or doesn't listen
            self._say_goodbye(time.monotonic() + seconds)
            self._child.ends_within(seconds)
        self.dispose()

    def _say_goodbye(self, deadline: float) -> None:
        raise NotImplementedError

    @contextmanager
    def _conversation(self) -> Iterator[None]:
        """Makes of what goes wrong on the channel a WorkerFailedError that says what became of the process."""
        began = time.monotonic()
        try:
            yield
        except ChannelTimeoutError as error:
            # It isn't dead, so it has to be before its last words are asked for.
            self._child.kill()
            raise WorkerFailedError(
                f"no answer within {time.monotonic() - began:.1f} s{self._child.last_words()}"
            ) from error
        except ChannelClosedError as error:
            raise WorkerFailedError(f"it died{self._child.last_words()}") from error
        except FrameError as error:
            self._child.kill()
            raise WorkerFailedError(f"the answer {error}{self._child.last_words()}") from error


class WorkerProcess(ProcessWorker):
    """A worker that speaks frames.

    Args:
        command: how its program is called.
        description: request that is answered by what the worker says about itself, once it is ready.
        limits: the largest frame to take.

    Raises:
        EngineStartError: the program is missing or can't be run.
    """

    def __init__(
        self, command: Command, *, description: Mapping[str, Any], limits: FrameLimits | None = None
    ) -> None:
        super().__init__(command)
        self._description = dict(description)
        self._numbers = itertools.count()
        self._frames = FrameChannel(self._channel, limits)

    def describe(self, *, deadline: float) -> dict[str, Any]:
        try:
            answer = self.request(self._description, {}, deadline=deadline)
        except WorkerFailedError as error:
            raise EngineStartError(f"{self._name} can't be started: {error}") from error
        refusal = answer.message.get("error")
        if isinstance(refusal, dict):
            kind = EngineMissingError if refusal.get("kind") == "missing_module" else EngineStartError
            raise kind(f"{self._name} can't be started: {refusal.get('message')}")
        return {name: value for name, value in answer.message.items() if name != "id"}

    def request(
        self, message: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], *, deadline: float
    ) -> Frame:
        number = next(self._numbers)
        with self._conversation():
            self._frames.send({**message, "id": number}, arrays, deadline=deadline)
            answer = self._frames.receive(deadline=deadline)
        if answer.message.get("id") != number:
            self._child.kill()
            raise WorkerFailedError(
                f"the answer is to request {answer.message.get('id')!r:.40}, not {number}"
            )
        return answer

    def ping(self, *, deadline: float) -> None:
        self.request({"operation": "ping"}, {}, deadline=deadline)

    def _say_goodbye(self, deadline: float) -> None:
        self._frames.send({"operation": "exit"}, deadline=deadline)
