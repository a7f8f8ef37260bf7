"""The server as a process: from start to SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, NoReturn

import torch

from seqtrain.errors import MissingDependencyError, SeqtrainError
from sprint_bridge.backends.base import Backend
from sprint_bridge.backends.load import load_backend
from sprint_bridge.config import ServeConfig
from sprint_bridge.memory import keep_freed_memory
from sprint_bridge.server import AlignerServer

if TYPE_CHECKING:
    from sprint_bridge.metrics import Metrics

__all__ = ["serve"]

_LOG = logging.getLogger("sprint_bridge")
_LOOK_SECONDS = 0.2


def serve(config: ServeConfig, *, announce: Callable[[str], None], parent: int | None = None) -> NoReturn:
    """Serves until SIGTERM or SIGINT, drains, and ends the process. Call it in the main thread.

    The status of the process is 0, or 2 where what should be served can't be loaded; the log says why.

    Args:
        config: what to serve, and where.
        announce: is called with `listening TARGET` as soon as that is true, and with `serving` once all is
            loaded.
        parent: process id; when it isn't this process's parent any more, the server ends as on SIGTERM.

    Raises:
        ConfigError: the address isn't allowed or is taken.
    """
    # Building automata is many small operations: threads of torch would only get in the way of the trainer's.
    torch.set_num_threads(1)
    keep_freed_memory()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stopping.set())
    metrics, stop_metrics = _metrics(config)
    server = AlignerServer(
        listen=config.listen,
        limits=config.limits,
        threads=config.threads,
        cache_bytes=config.cache_bytes,
        tls=config.tls,
        tokens=config.tokens,
        insecure_loopback=config.insecure_loopback,
        metrics=metrics,
    )
    server.start()
    status = 0
    try:
        announce(f"listening {server.target}")
        loading = _in_background(lambda: load_backend(config.backend))
        loaded = False
        while not stopping.wait(_LOOK_SECONDS if loaded else 0.02):
            if parent is not None and os.getppid() != parent:
                _LOG.info("the process that started this server has ended")
                break
            if not loaded and loading.done():
                backend = loading.result()
                server.serve(backend)
                loaded = True
                _LOG.info(
                    "serving %d labels, configuration %s, on %s",
                    len(backend.inventory),
                    backend.config_digest[:12],
                    server.target,
                )
                announce("serving")
    except SeqtrainError as error:
        _LOG.error("%s", error)
        status = 2
    finally:
        server.stop(config.drain_seconds)
        stop_metrics()
        _LOG.info("stopped")
    # All is answered and removed. An ordinary exit would wait for grpc's core to take itself apart, which now
    # and then takes ten seconds (seen with grpcio 1.66 and 1.71).
    logging.shutdown()
    os._exit(status)


def _metrics(config: ServeConfig) -> tuple[Metrics | None, Callable[[], None]]:
    """The counters where they are asked for, and what ends their being served."""
    if config.metrics is None:
        return None, lambda: None
    try:
        from sprint_bridge.metrics import Metrics, serve_metrics
    except ModuleNotFoundError as error:
        raise MissingDependencyError("prometheus-client", extra="bridge") from error
    metrics = Metrics()
    return metrics, serve_metrics(metrics, config.metrics)


def _in_background(load: Callable[[], Backend]) -> Future[Backend]:
    # A daemon thread: a server that is told to stop doesn't wait for a corpus to be read to its end.
    future: Future[Backend] = Future()

    def run() -> None:
        try:
            backend = load()
        except BaseException as error:  # whoever waits for the engine gets it, whatever it is
            future.set_exception(error)
        else:
            future.set_result(backend)

    threading.Thread(target=run, name="loading", daemon=True).start()
    return future
