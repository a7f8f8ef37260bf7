"""Where a server listens, and who may reach it there."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

import grpc

from seqtrain.errors import ConfigError

__all__ = ["Address", "resolve_address"]

# Size of sun_path on Linux, less the closing zero.
_LONGEST_SOCKET_PATH = 107


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    `target` is what clients are given (port 0 is replaced once it is bound), `socket` the file of a unix
    socket, `private` a directory made for it, which goes away with it.
    """

    target: str
    socket: Path | None = None
    private: Path | None = None

    def bind(self, server: grpc.Server, credentials: grpc.ServerCredentials | None = None) -> Address:
        """Binds the server, a TCP port with `credentials` where there are any; the address with the port that it got.

        Raises:
            ConfigError: the address is taken or can't be bound.
        """
        try:
            if self.socket is not None:
                # The socket is the owner's alone from its first moment, whatever directory it is in.
                before = os.umask(0o177)
                try:
                    server.add_insecure_port(self.target)
                finally:
                    os.umask(before)
                return self
            if credentials is None:
                port = server.add_insecure_port(self.target)
            else:
                port = server.add_secure_port(self.target, credentials)
        except RuntimeError as error:
            raise ConfigError(f"can't listen on {self.target}: {error}", key="listen") from error
        return Address(f"{self.target.rpartition(':')[0]}:{port}")

    def remove(self) -> None:
        """Removes the socket and the directory made for it."""
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)
        if self.private is not None:
            shutil.rmtree(self.private, ignore_errors=True)


def resolve_address(listen: str | None, *, tls: bool = False, insecure_loopback: bool = False) -> Address:
    """The address for `listen`: `unix:/path`, `host:port`, or None for a socket in a new directory.

    Args:
        listen: the address.
        tls: whether the server has a certificate, without which it listens on no TCP port.
        insecure_loopback: allows a loopback port without; every user of the host may call there.

    Raises:
        ConfigError: the path is too long, in a directory that others may write to, or served already; TCP without
            TLS.
    """
    if listen is None:
        private = Path(tempfile.mkdtemp(prefix="sprint-bridge-"))
        path = private / "aligner.sock"
        return Address(f"unix:{path}", path, private)
    if listen.startswith("unix:"):
        path = Path(listen.removeprefix("unix:"))
        _prepare_socket(path)
        return Address(f"unix:{path}", path)
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"listen is {listen!r}; it must be unix:/path or host:port", key="listen")
    if not tls and not (insecure_loopback and _is_loopback(host)):
        advice = (
            "; a loopback port may go without by insecure_loopback: true, which lets in every user of this host"
            if _is_loopback(host)
            else ""
        )
        raise ConfigError(
            f"listen is {listen!r}: TCP needs TLS (tls.certificate, tls.key); use that, or a unix socket{advice}",
            key="listen",
        )
    return Address(listen)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _prepare_socket(path: Path) -> None:
    if not path.is_absolute():
        raise ConfigError(f"listen: the path of the socket must be absolute, found {path}", key="listen")
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise ConfigError(
            f"listen: the path of a unix socket has at most {_LONGEST_SOCKET_PATH} bytes, this one has "
            f"{len(os.fsencode(path))}: {path}",
            key="listen",
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"listen: others may write to {path.parent}, and could put their own socket there; use a "
            "directory that is yours alone (chmod 700)",
            key="listen",
        )
    if not path.exists():
        return
    if not path.is_socket():
        raise ConfigError(f"listen: {path} exists and isn't a socket", key="listen")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            # Left behind by a server that was killed.
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ConfigError(f"listen: {path} can't be used: {error}", key="listen") from error
    raise ConfigError(f"listen: another server is listening on {path}", key="listen")
