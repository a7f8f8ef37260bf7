"""A gRPC server with the aligner service and its health."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from grpc_reflection.v1alpha import reflection

from seqtrain.aligner.v1 import aligner_pb2_grpc
from seqtrain.aligner.v1.health import SERVICE
from seqtrain.aligner.v1.score_streams import serve_score_streams
from seqtrain.errors import ConfigError
from sprint_bridge.address import Address, resolve_address
from sprint_bridge.backends.base import Backend
from sprint_bridge.config import Limits
from sprint_bridge.security import Tls, TokenCheck, read_tokens
from sprint_bridge.service import AlignerService

if TYPE_CHECKING:
    from sprint_bridge.metrics import Metrics

__all__ = ["AlignerServer"]

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class AlignerServer:
    """Listens from `start` on; unhealthy and unavailable until `serve` gives it an engine.

    Args:
        listen: see `resolve_address`.
        limits: what a request may ask for.
        threads: that work on answers at a time.
        cache_bytes: memory for automata that were asked for before; 0: none.
        tls: certificate of a TCP port.
        tokens: file of the callers' tokens; None: whoever reaches the address may call.
        insecure_loopback: see `resolve_address`.
        metrics: counts calls and items.

    Raises:
        ConfigError: the address isn't allowed or is taken; a file of certificates or tokens can't be used.
    """

    def __init__(
        self,
        *,
        listen: str | None = None,
        limits: Limits | None = None,
        threads: int = 4,
        cache_bytes: int = 256 << 20,
        tls: Tls | None = None,
        tokens: Path | None = None,
        insecure_loopback: bool = False,
        metrics: Metrics | None = None,
    ) -> None:
        credentials = None if tls is None else tls.credentials()
        interceptors: list[grpc.ServerInterceptor] = []
        if metrics is not None:
            from sprint_bridge.metrics import MetricsInterceptor

            interceptors.append(MetricsInterceptor(metrics))
        if tokens is not None:
            interceptors.append(TokenCheck(read_tokens(tokens)))
        limits = limits if limits is not None else Limits()
        self._metrics = metrics
        self._service = AlignerService(limits, threads=threads, cache_bytes=cache_bytes, metrics=metrics)
        self._health = HealthServicer()
        for name in ("", SERVICE):
            self._health.set(name, _NOT_SERVING)
        # A stream keeps its thread as long as it is open, whether or not it has something to do; how many threads work
        # at a time is for the service to say.
        self._executor = ThreadPoolExecutor(
            max_workers=limits.max_concurrent_calls, thread_name_prefix="aligner"
        )
        self._server = grpc.server(
            self._executor,
            interceptors=interceptors,
            maximum_concurrent_rpcs=limits.max_concurrent_calls,
            options=[
                ("grpc.max_receive_message_length", limits.max_request_bytes),
                ("grpc.max_send_message_length", -1),
                # A second server on the same port is an error, not a coin toss for each call.
                ("grpc.so_reuseport", 0),
            ],
        )
        serve_score_streams(self._service, self._server)
        aligner_pb2_grpc.add_AlignerServicer_to_server(self._service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, reflection.SERVICE_NAME, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection(names, self._server)
        address = resolve_address(listen, tls=tls is not None, insecure_loopback=insecure_loopback)
        try:
            self._address: Address = address.bind(self._server, credentials)
        except ConfigError:
            address.remove()
            raise

    @property
    def target(self) -> str:
        """What clients connect to."""
        return self._address.target

    def __enter__(self) -> AlignerServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Takes calls, and answers that it isn't ready."""
        self._server.start()

    def serve(self, backend: Backend) -> None:
        """Is ready from now on."""
        self._service.backend = backend
        if self._metrics is not None:
            self._metrics.watch(backend, self._service.cache)
        for name in ("", SERVICE):
            self._health.set(name, _SERVING)

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Takes no new calls, lets running ones end for so long, and goes away."""
        self._health.enter_graceful_shutdown()
        self._server.stop(drain_seconds).wait()
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._service.close()
        self._address.remove()
