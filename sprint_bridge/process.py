"""A service of one's own: started as a child process, and stopped by its handle."""

from __future__ import annotations

import dataclasses
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn

from seqtrain.errors import AlignerTimeoutError, AlignerUnavailableError
from sprint_bridge.config import ServeConfig, dump_config, parse_config, read_config

__all__ = ["BridgeProcess"]

_STDERR_LINES = 20
_STDERR_BYTES = 16384


class BridgeProcess:
    """Runs `sprint-bridge serve` while the context is open.

        with BridgeProcess(config) as bridge, AlignerClient(bridge.target) as aligner:
            …

    By default the service listens on a unix socket in a private directory (mode 0700) that goes away with it.
    The child is in a session of its own, so a Ctrl-C is for the parent to handle, and it ends when the parent
    ends, however that happens.

    Args:
        config: a `ServeConfig`, the same as a mapping (relative paths start from the current directory), or a
            file.
        start_timeout: seconds that starting and loading may take.
        stop_timeout: seconds that the child gets to drain before it is killed.
        log: file that the child's stderr is appended to; None: it is kept for the errors of `start` and
            `check` only.

    Raises:
        ConfigError: the configuration is wrong.
    """

    def __init__(
        self,
        config: ServeConfig | Mapping[str, Any] | str | Path,
        *,
        start_timeout: float = 60.0,
        stop_timeout: float = 15.0,
        log: str | Path | None = None,
    ) -> None:
        if isinstance(config, str | Path):
            config = read_config(Path(config))
        elif not isinstance(config, ServeConfig):
            config = parse_config(config, folder=Path.cwd())
        self._config = config
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._log = Path(log) if log is not None else None
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._target: str | None = None

    def __enter__(self) -> BridgeProcess:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def target(self) -> str:
        """What clients connect to; stays the same when the service is started again.

        Raises:
            AlignerUnavailableError: the service hasn't been started yet.
        """
        if self._target is None:
            raise AlignerUnavailableError("the aligner service hasn't been started; call start()")
        return self._target

    @property
    def pid(self) -> int | None:
        """Process id of the child, None where there is none."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Starts the service, also one that has ended, and waits until it is ready.

        Does nothing where it is running.

        Raises:
            AlignerUnavailableError: the child ended; has its last lines of stderr.
            AlignerTimeoutError: it wasn't ready in time, and was stopped.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        deadline = time.monotonic() + self._start_timeout
        # Closed by stop().
        self._stderr = self._log.open("ab+") if self._log is not None else tempfile.TemporaryFile()  # noqa: SIM115  # stays open with the process
        config = dump_config(dataclasses.replace(self._config, listen=self._target or self._config.listen))
        parent = ["--parent", str(os.getpid())]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sprint_bridge", "serve", "--config", "-", *parent],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
        )
        try:
            self._send_config(self._process, config)
            self._await_ready(self._process, deadline)
        except BaseException:
            self.stop()
            raise

    def check(self) -> None:
        """Raises AlignerUnavailableError, with the child's last lines of stderr, where the child has
        ended.
        """
        if self._process is None:
            raise AlignerUnavailableError("the aligner service isn't running", target=self._target)
        status = self._process.poll()
        if status is not None:
            raise AlignerUnavailableError(
                f"the aligner service has ended with status {status}{self._last_words()}", target=self._target
            )

    def stop(self) -> None:
        """Stops the service: SIGTERM, then, after `stop_timeout`, SIGKILL. Harmless when repeated."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(self._stop_timeout)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None
        # A child that was killed couldn't remove the directory that it made.
        if self._config.listen is None and self._target is not None:
            shutil.rmtree(Path(self._target.removeprefix("unix:")).parent, ignore_errors=True)

    def _send_config(self, process: subprocess.Popen[bytes], config: dict[str, object]) -> None:
        if process.stdin is None:
            raise AlignerUnavailableError("the child has no stdin")
        try:
            process.stdin.write(json.dumps(config).encode("utf-8"))
            process.stdin.close()
        except BrokenPipeError:
            self._ended(process)

    def _await_ready(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        if process.stdout is None:
            raise AlignerUnavailableError("the child has no stdout")
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                *lines, _ = received.decode("utf-8", errors="replace").split("\n")
                for line in lines:
                    if line.startswith("listening "):
                        self._target = line.removeprefix("listening ")
                if "serving" in lines:
                    return
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise AlignerTimeoutError(
                        f"the aligner service wasn't ready after {self._start_timeout:.1f} s"
                        f"{self._last_words()}",
                        target=self._target,
                    )
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    self._ended(process)
                received += chunk

    def _ended(self, process: subprocess.Popen[bytes]) -> NoReturn:
        """For a child that has closed its end of a pipe: it is about to be gone."""
        try:
            status = process.wait(self._stop_timeout)
        except subprocess.TimeoutExpired:
            status = None
        raise AlignerUnavailableError(
            f"the aligner service ended with status {status} while it started{self._last_words()}",
            target=self._target,
        )

    def _last_words(self) -> str:
        if self._stderr is None:
            return ""
        # Not by seek and read: the child writes at the position of the same open file.
        file = self._stderr.fileno()
        size = os.fstat(file).st_size
        tail = os.pread(file, _STDERR_BYTES, max(0, size - _STDERR_BYTES))
        lines = tail.decode("utf-8", errors="replace").splitlines()
        return "; it said:\n" + "\n".join(lines[-_STDERR_LINES:]) if lines else ", and said nothing"
