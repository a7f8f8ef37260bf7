"""Channels to the service's servers: every call has a deadline, is retried within it, and ends in a typed error."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc

from seqtrain.aligner.status import OUTCOMES
from seqtrain.aligner.stream import StreamError
from seqtrain.aligner.v1.credentials import Credentials
from seqtrain.aligner.v1.health import is_serving
from seqtrain.errors import AlignerError, AlignerTimeoutError, AlignerUnavailableError

__all__ = ["Connection"]

T = TypeVar("T")

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.25
# One of several servers that was lost is asked again after so long; and has so long to say that it is well.
_AWAY_SECONDS = 1.0
_ADMISSION_SECONDS = 2.0
# A name that has several addresses stands for several servers.
_ROUND_ROBIN = '{"loadBalancingConfig": [{"round_robin": {}}]}'

# grpc's core runs threads of its own, which a forked child doesn't have: whoever calls it there waits for
# ever. So this remembers which process woke it.
_core_started_in: int | None = None


@dataclass(eq=False)
class _Server:
    """One of the servers. One of several is asked for its health before it is asked for more: it may be loading,
    draining, hanging, or a host that swallows what is sent to it.
    """

    target: str
    channel: grpc.Channel | None = None
    admitted: bool = False
    away_until: float = 0.0


class Connection:
    """Channels to servers that are alike, opened at the first call; calls take turns among them, and one that finds its
    server unavailable goes to the next.

    Args:
        targets: `unix:/path` or `host:port` of each; a name with several addresses stands for a server at each.
        max_response_bytes: a larger answer is refused.
        credentials: TLS, the client's certificate, a token.
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        max_response_bytes: int,
        credentials: Credentials | None = None,
    ) -> None:
        self.target = ",".join(targets)
        self._servers = [_Server(target) for target in targets]
        self._turn = 0
        self._credentials = credentials if credentials is not None else Credentials()
        self._max_response_bytes = max_response_bytes
        self._process = os.getpid()
        self._lock = threading.Lock()
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

    def call(
        self, what: str, attempt: Callable[[grpc.Channel, float], T], *, deadline: float
    ) -> tuple[T, str]:
        """The result of `attempt(channel, seconds left)`, and the address of the server that it is from.

        An attempt asks one server, and may be made again, of another.

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
        untried = set(self._servers)
        while True:
            left = deadline - time.monotonic()
            if left > 0:
                server = self._next(untried)
                untried.discard(server)
                try:
                    channel = self._open(server)
                    if not server.admitted:
                        self._admit(server, channel, left)
                    return attempt(channel, deadline - time.monotonic()), server.target
                except ValueError:
                    # A call on a channel that close() has just closed.
                    self.check()
                    raise
                except grpc.RpcError as error:
                    code, details = _status(error)
                    cause = error
                    self.check()
                    if not OUTCOMES[code].retried:
                        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                            self._lost(server)
                            if unreachable is not None:
                                raise self._unreachable(what, unreachable, began) from cause
                        raise self._error(what, code, details, began, server.target) from cause
                    self._lost(server)
                    unreachable = details if len(self._servers) == 1 else f"{server.target}: {details}"
                    if untried:
                        continue
            elif unreachable is None:
                raise self._error(
                    what, grpc.StatusCode.DEADLINE_EXCEEDED, "no time was left to ask", began, self.target
                )
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._unreachable(what, unreachable, began)
            # Random, so that many clients of a service that comes back don't all knock at once.
            self._closed.wait(min(left, pause * random.uniform(0.5, 1.0)))
            pause = min(2 * pause, _LONGEST_PAUSE)
            untried = set(self._servers)
            self.check()

    def close(self) -> None:
        """Ends running calls and closes the channel; in a forked child does nothing."""
        if os.getpid() != self._process:
            return
        self._closed.set()
        with self._lock:
            channels = [server.channel for server in self._servers]
            for server in self._servers:
                server.channel = None
        for channel in channels:
            if channel is not None:
                channel.close()

    def _next(self, untried: set[_Server]) -> _Server:
        """The server whose turn it is, those that were lost a moment ago last."""
        with self._lock:
            count = len(self._servers)
            order = [self._servers[(self._turn + index) % count] for index in range(count)]
            now = time.monotonic()
            server = min(
                (server for server in order if server in untried), key=lambda server: server.away_until > now
            )
            self._turn = (self._servers.index(server) + 1) % count
            return server

    def _admit(self, server: _Server, channel: grpc.Channel, left: float) -> None:
        if len(self._servers) == 1:
            return
        try:
            ready = is_serving(channel, timeout=min(left, _ADMISSION_SECONDS))
        except grpc.RpcError as error:
            code, details = _status(error)
            if code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            raise StreamError(grpc.StatusCode.UNAVAILABLE, f"doesn't answer ({details})") from error
        if not ready:
            raise StreamError(grpc.StatusCode.UNAVAILABLE, "is loading or draining")
        server.admitted = True

    def _lost(self, server: _Server) -> None:
        server.admitted = False
        server.away_until = time.monotonic() + _AWAY_SECONDS

    def _open(self, server: _Server) -> grpc.Channel:
        global _core_started_in
        with self._lock:
            self.check()
            if server.channel is None:
                _core_started_in = os.getpid()
                server.channel = self._credentials.open(
                    server.target,
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
                        ("grpc.service_config", _ROUND_ROBIN),
                    ],
                )
            return server.channel

    def _error(
        self, what: str, code: grpc.StatusCode, details: str, began: float, target: str
    ) -> AlignerError:
        outcome = OUTCOMES[code]
        after = f" after {time.monotonic() - began:.1f} s" if outcome.error is AlignerTimeoutError else ""
        return outcome.error(
            f"aligner at {target}: no {what}{after}: {details or code.name} ({code.name}); {outcome.advice}",
            target=target,
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
