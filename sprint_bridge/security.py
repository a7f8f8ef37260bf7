"""Who may call: TLS, certificates of clients, and tokens."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from seqtrain.errors import ConfigError

__all__ = ["Tls", "TokenCheck", "read_tokens"]

_OPEN = ("/grpc.health.v1.Health/",)
"""Services that answer without a token: whoever watches over servers has none."""


@dataclass(frozen=True)
class Tls:
    """Files in PEM format.

    Attributes:
        certificate: the server's, with the chain up to its authority.
        key: the server's, readable by its user alone.
        client_ca: authority of the clients' certificates; with it, a client without one isn't let in (mTLS).
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """What a port is bound with.

        Raises:
            ConfigError: a file can't be read, or others can read the key.
        """
        key = _read(self.key, "tls.key", private=True)
        chain = _read(self.certificate, "tls.certificate")
        authority = None if self.client_ca is None else _read(self.client_ca, "tls.client_ca")
        return grpc.ssl_server_credentials(
            [(key, chain)], root_certificates=authority, require_client_auth=authority is not None
        )


def _read(path: Path, key: str, *, private: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            if private and os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(f"{key}: others may read {path}; chmod 600 it", key=key)
            return file.read()
    except OSError as error:
        raise ConfigError(f"{key}: {path} can't be read: {error.strerror}", key=key) from error


def read_tokens(path: Path) -> dict[str, bytes]:
    """Digests of the tokens of a file, by caller: lines `caller token`, # for remarks; the file is its user's alone.

    Raises:
        ConfigError: it can't be read, others can read it, a line is malformed or too short a secret, or two callers
            have one name.
    """
    callers: dict[str, bytes] = {}
    for number, line in enumerate(_read(path, "tokens", private=True).decode("utf-8").splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) != 2 or len(fields[1]) < 16:
            raise ConfigError(
                f"tokens: line {number} of {path} must be `caller token`, the token of 16 characters or more",
                key="tokens",
            )
        if fields[0] in callers:
            raise ConfigError(f"tokens: line {number} of {path} names {fields[0]} again", key="tokens")
        callers[fields[0]] = hashlib.sha256(fields[1].encode()).digest()
    if not callers:
        raise ConfigError(f"tokens: {path} has none", key="tokens")
    return callers


class TokenCheck(grpc.ServerInterceptor):
    """Lets calls pass that bring the token of a known caller.

    Args:
        callers: digests, of `read_tokens`.
    """

    def __init__(self, callers: dict[str, bytes]) -> None:
        self._callers = callers

    def caller(self, metadata: Any) -> str | None:
        """Who calls, or None for nobody known."""
        given = next((value for key, value in metadata or () if key == "authorization"), "")
        scheme, _, token = str(given).partition(" ")
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        for name, known in self._callers.items():
            # All are compared, so that the time it takes tells nothing.
            if hmac.compare_digest(digest, known) and scheme.lower() == "bearer":
                found = name
        return found

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        open_to_all = handler_call_details.method.startswith(_OPEN)
        if (
            handler is None
            or open_to_all
            or self.caller(handler_call_details.invocation_metadata) is not None
        ):
            return handler

        def refuse(_: Any, context: grpc.ServicerContext) -> Any:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token, or none that this server knows")

        kinds = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }
        make = kinds[handler.request_streaming, handler.response_streaming]
        return make(refuse, handler.request_deserializer, handler.response_serializer)
