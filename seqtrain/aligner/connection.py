"""One channel to the service: every call has a deadline, is retried within it, and ends in a typed error."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import grpc

from seqtrain.aligner.status import OUTCOMES
from seqtrain.aligner.stream import StreamError
from seqtrain.aligner.v1.credentials import Credentials
from seqtrain.errors import AlignerError, AlignerTimeoutError, AlignerUnavailableError

__all__ = ["Connection"]

T = TypeVar("T")

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.25

# grpc's core runs threads of its own, which a forked child doesn't have: whoever calls it there waits for
# ever. So this remembers which process woke it.
_core_started_in: int | None = None


class Connection:
    """A channel to `target` (`unix:/path` or `host:port`), opened at the first call."""

    def __init__(
        self, target: str, *, max_response_bytes: int, credentials: Credentials | None = None
    ) -> None:
        self.target = target
        self._credentials = credentials if credentials is not None else Credentials()
        self._max_response_bytes = max_response_bytes
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._closed = threading.Event()

    @property
    def usable(self) -> bool:
        """Whether this process made the connection and hasn't closed it."""
        return os.getpid() == self._process and not self._closed.is_set()

    def check(self) -> None:
        """Raises AlignerError where a call can't be made at all: in a forked child, or after `close`.

        Touches no lock, for in a forked child one may be held for ever.
        """
        process = os.getpid()
        if process != self._process or _core_started_in not in (None, process):
            parent = self._process if process != self._process else _core_started_in
            raise AlignerError(
                f"the connection to the aligner at {self.target} belongs to process {parent}, and this is "
                f"its forked child {process}, where grpc doesn't work; fetch automata in the main process, "
                "or start workers with multiprocessing_context='spawn' and make the client there",
                target=self.target,
            )
        if self._closed.is_set():
            raise AlignerError(f"the client of the aligner at {self.target} is closed", target=self.target)

    def call(self, what: str, attempt: Callable[[grpc.Channel, float], T], *, deadline: float) -> T:
        """The result of `attempt(channel, seconds left)`, which makes one rpc and may be made again.

        Args:
            what: is being asked for, for errors.
            attempt: makes the rpc; its `grpc.RpcError` becomes a typed error (see `seqtrain.aligner.status`).
            deadline: on the clock of `time.monotonic`.

        Raises:
            AlignerUnavailableError: the service stayed unreachable until the deadline.
            AlignerTimeoutError: the service didn't answer by the deadline.
            AlignerError: anything else; not retried.
        """
        self.check()
        began = time.monotonic()
        pause = _FIRST_PAUSE
        unreachable: str | None = None
        while True:
            left = deadline - time.monotonic()
            if left > 0:
                try:
                    return attempt(self._open(), left)
                except ValueError:
                    # A call on a channel that close() has just closed.
                    self.check()
                    raise
                except grpc.RpcError as error:
                    code, details = _status(error)
                    cause = error
                    self.check()
                    if not OUTCOMES[code].retried:
                        if code is grpc.StatusCode.DEADLINE_EXCEEDED and unreachable is not None:
                            raise self._unreachable(what, unreachable, began) from cause
                        raise self._error(what, code, details, began) from cause
                    unreachable = details
            elif unreachable is None:
                raise self._error(what, grpc.StatusCode.DEADLINE_EXCEEDED, "no time was left to ask", began)
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._unreachable(what, unreachable, began)
            # Random, so that many clients of a service that comes back don't all knock at once.
            self._closed.wait(min(left, pause * random.uniform(0.5, 1.0)))
            pause = min(2 * pause, _LONGEST_PAUSE)
            self.check()

    def close(self) -> None:
        """Ends running calls and closes the channel; in a forked child does nothing."""
        if os.getpid() != self._process:
            return
        self._closed.set()
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _open(self) -> grpc.Channel:
        global _core_started_in
        with self._lock:
            self.check()
            if self._channel is None:
                _core_started_in = os.getpid()
                self._channel = self._credentials.open(
                    self.target,
                    options=[
                        ("grpc.max_receive_message_length", self._max_response_bytes),
                        ("grpc.max_send_message_length", -1),
                        # While the core waits to connect again, every call fails at once. So it waits no
                        # longer than a call does between its own attempts: a restarted service is found
                        # again in well under a second, and also by a call with a short deadline.
                        ("grpc.initial_reconnect_backoff_ms", 100),
                        ("grpc.max_reconnect_backoff_ms", 200),
                        # An aligner is never behind a web proxy, whatever the environment says.
                        ("grpc.enable_http_proxy", 0),
                        # An rpc has its own retries here, with errors that say what happened.
                        ("grpc.enable_retries", 0),
                        # Channels of one process with equal options share a connection by default; then one
                        # client's trouble is another's.
                        ("grpc.use_local_subchannel_pool", 1),
                    ],
                )
            return self._channel

    def _error(self, what: str, code: grpc.StatusCode, details: str, began: float) -> AlignerError:
        outcome = OUTCOMES[code]
        after = f" after {time.monotonic() - began:.1f} s" if outcome.error is AlignerTimeoutError else ""
        return outcome.error(
            f"aligner at {self.target}: no {what}{after}: {details or code.name} ({code.name}); "
            f"{outcome.advice}",
            target=self.target,
        )

    def _unreachable(self, what: str, details: str | None, began: float) -> AlignerUnavailableError:
        return AlignerUnavailableError(
            f"aligner at {self.target}: no {what}, not reachable for {time.monotonic() - began:.1f} s: "
            f"{details}; {OUTCOMES[grpc.StatusCode.UNAVAILABLE].advice}",
            target=self.target,
        )


def _status(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    # What a channel raises is a grpc.Call as well; the base class alone has no status.
    if not isinstance(error, grpc.Call | StreamError):
        return grpc.StatusCode.UNKNOWN, str(error)
    return error.code(), error.details() or ""
