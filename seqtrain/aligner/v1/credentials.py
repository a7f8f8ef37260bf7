"""How a client knows the service, and the service the client: TLS, certificates, a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from seqtrain.errors import ArgumentError

__all__ = ["Credentials"]


@dataclass(frozen=True)
class Credentials:
    """What a channel is opened with.

    Attributes:
        ca: authority of the server's certificate (PEM); with it the channel is encrypted. Not for unix sockets.
        certificate, key: the client's own, where the server asks for one (mTLS).
        token: sent with every call.
        server_name: the name in the server's certificate, where it isn't that of the address.

    Raises:
        ArgumentError: only one of certificate and key, or either without a ca.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: str | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None) or (self.key is not None and self.ca is None):
            raise ArgumentError(
                "a client's certificate goes with its key, and both with the ca of the server",
                argument="certificate",
            )

    def open(self, target: str, options: Sequence[tuple[str, Any]]) -> grpc.Channel:
        """A channel to the target.

        Raises:
            ArgumentError: a file can't be read, or TLS is asked for on a unix socket.
        """
        if self.ca is None:
            channel = grpc.insecure_channel(target, options=options)
        else:
            if target.startswith("unix:"):
                raise ArgumentError(
                    f"{target} is a unix socket, which has no TLS: leave ca out", argument="ca"
                )
            credentials = grpc.ssl_channel_credentials(
                self._read("ca"), self._read("key"), self._read("certificate")
            )
            name = self.server_name
            named = [("grpc.ssl_target_name_override", name)] if name is not None else []
            channel = grpc.secure_channel(target, credentials, options=[*options, *named])
        return channel if self.token is None else grpc.intercept_channel(channel, _Bearer(self.token))

    def _read(self, name: str) -> bytes | None:
        path: Path | None = getattr(self, name)
        try:
            return None if path is None else path.read_bytes()
        except OSError as error:
            raise ArgumentError(f"{name}: {path} can't be read: {error.strerror}", argument=name) from error


_DETAILS = ("method", "timeout", "credentials", "wait_for_ready", "compression")


class _CallDetails(grpc.ClientCallDetails):
    """Details of a call with other metadata."""

    def __init__(self, details: Any, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        for name in _DETAILS:
            setattr(self, name, getattr(details, name, None))
        self.metadata = metadata


class _Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Sends a token with each call."""

    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def _call(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        metadata = (*(details.metadata or ()), self._header)
        return continuation(_CallDetails(details, metadata), request)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._call(continuation, client_call_details, request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._call(continuation, client_call_details, request)

    def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return self._call(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return self._call(continuation, client_call_details, request_iterator)
