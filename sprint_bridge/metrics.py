"""What a server counts, for Prometheus: calls, their times, what became of items, workers, the cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from seqtrain.errors import ConfigError
from sprint_bridge.automaton_cache import AutomatonCache
from sprint_bridge.backends.base import Backend, Pooled

__all__ = ["Metrics", "MetricsInterceptor", "serve_metrics"]

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.in_flight = Gauge(
            "seqtrain_aligner_calls_in_flight", "Calls being answered", ["method"], registry=self.registry
        )
        self.seconds = Histogram(
            "seqtrain_aligner_call_seconds", "Time of a call, streams from their begin to their end", ["method"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.calls = Counter(
            "seqtrain_aligner_calls", "Calls by their status", ["method", "code"], registry=self.registry
        )
        self.items = Counter(
            "seqtrain_aligner_items", "Items of batches by their status", ["status"], registry=self.registry
        )

    def watch(self, backend: Backend, cache: AutomatonCache) -> None:
        """From now on there are also the counters of the engine's workers, if it has any, and of the cache."""
        self.registry.register(_Watched(backend, cache))


# Field of `PoolCounters` → kind, name and meaning of its metric.
_POOL = {
    "instances": (GaugeMetricFamily, "workers", "Workers that there should be"),
    "alive": (GaugeMetricFamily, "workers_alive", "Workers that are ready"),
    "starts": (CounterMetricFamily, "worker_starts", "Workers started"),
    "restarts": (CounterMetricFamily, "worker_restarts", "Workers started in place of others"),
    "crashes": (CounterMetricFamily, "worker_crashes", "Workers that died, hung or answered nonsense"),
    "start_failures": (
        CounterMetricFamily,
        "worker_start_failures",
        "Starts of workers that came to nothing",
    ),
    "retried": (CounterMetricFamily, "items_retried", "Items that were tried a second time"),
    "quarantined": (GaugeMetricFamily, "items_quarantined", "Items that aren't tried again"),
    "answered": (CounterMetricFamily, "items_answered", "Items that workers have answered, errors included"),
    "waiting": (GaugeMetricFamily, "queue_length", "Items that wait for a worker"),
    "in_flight": (GaugeMetricFamily, "items_in_flight", "Items at a worker"),
    "waiting_seconds": (CounterMetricFamily, "queue_seconds", "Time that items have waited for a worker"),
    "working_seconds": (CounterMetricFamily, "worker_busy_seconds", "Time that workers have worked on items"),
}
_CACHE = {
    "hits": (CounterMetricFamily, "cache_hits", "Automata found in the server's cache"),
    "misses": (CounterMetricFamily, "cache_misses", "Automata not found in the server's cache"),
    "entries": (GaugeMetricFamily, "cache_entries", "Automata in the server's cache"),
    "num_bytes": (GaugeMetricFamily, "cache_bytes", "Memory that the server's cache takes"),
    "max_bytes": (GaugeMetricFamily, "cache_max_bytes", "Memory that the server's cache may take"),
}


class _Watched(Collector):
    """Asks for the counters whenever somebody fetches them."""

    def __init__(self, backend: Backend, cache: AutomatonCache) -> None:
        self._backend = backend
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        pools = self._backend.counters() if isinstance(self._backend, Pooled) else {}
        for field, (make, name, meaning) in _POOL.items() if pools else ():
            family = make(f"seqtrain_aligner_{name}", meaning, labels=["pool"])
            for pool, counters in pools.items():
                family.add_metric([pool], getattr(counters, field))
            yield family
        cached = self._cache.counters()
        for field, (make, name, meaning) in _CACHE.items():
            family = make(f"seqtrain_aligner_{name}", meaning, labels=[])
            family.add_metric([], getattr(cached, field))
            yield family


class MetricsInterceptor(grpc.ServerInterceptor):
    """Counts every call."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method.rpartition("/")[2]
        if handler.response_streaming:
            behavior = handler.stream_stream if handler.request_streaming else handler.unary_stream
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(
                self._counted_stream(method, behavior),
                handler.request_deserializer,
                handler.response_serializer,
            )
        behavior = handler.stream_unary if handler.request_streaming else handler.unary_unary
        make_one = (
            grpc.stream_unary_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make_one(
            self._counted(method, behavior), handler.request_deserializer, handler.response_serializer
        )

    def _counted(self, method: str, behavior: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            with _Call(self._metrics, method, context):
                return behavior(request, context)

        return call

    def _counted_stream(
        self, method: str, behavior: Callable[[Any, Any], Iterator[Any]]
    ) -> Callable[[Any, Any], Iterator[Any]]:
        def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with _Call(self._metrics, method, context):
                yield from behavior(request, context)

        return call


class _Call:
    """One call, from its begin to its end."""

    def __init__(self, metrics: Metrics, method: str, context: grpc.ServicerContext) -> None:
        self._metrics = metrics
        self._method = method
        self._context = context
        self._began = time.monotonic()

    def __enter__(self) -> None:
        self._metrics.in_flight.labels(self._method).inc()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        metrics, method = self._metrics, self._method
        metrics.in_flight.labels(method).dec()
        metrics.seconds.labels(method).observe(time.monotonic() - self._began)
        code = getattr(
            self._context, "code", lambda: None
        )()  # set by abort; none where all went well, or where the handler itself failed
        if isinstance(code, grpc.StatusCode):
            name = code.name
        elif kind is GeneratorExit:
            name = "CANCELLED"
        else:
            name = "OK" if kind is None else "UNKNOWN"
        metrics.calls.labels(method, name).inc()


def serve_metrics(metrics: Metrics, address: str) -> Callable[[], None]:
    """Serves the counters over HTTP at `host:port`; returns what ends that.

    Raises:
        ConfigError: the address is malformed or taken.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"metrics is {address!r}; it must be host:port", key="metrics")
    try:
        server, thread = start_http_server(
            int(port), addr=host.removeprefix("[").removesuffix("]"), registry=metrics.registry
        )
    except OSError as error:
        raise ConfigError(f"metrics can't be served on {address}: {error.strerror}", key="metrics") from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
