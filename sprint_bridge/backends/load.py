"""The engine of a configuration, started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sprint_bridge.backends.base import Backend
from sprint_bridge.backends.librasr import LibrasrBackendConfig, load_librasr_backend
from sprint_bridge.backends.local import load_local_backend
from sprint_bridge.backends.pocketsphinx import PocketsphinxBackendConfig, load_pocketsphinx_backend
from sprint_bridge.backends.replay import ReplayBackendConfig, load_replay_backend
from sprint_bridge.backends.returnn_control import ReturnnControlBackendConfig, load_returnn_control_backend
from sprint_bridge.backends.sprint import SprintBackendConfig, load_sprint_backend
from sprint_bridge.config import BackendConfig, LocalBackendConfig

__all__ = ["load_backend"]

_LOADERS: dict[type, Callable[[Any], Backend]] = {
    LocalBackendConfig: load_local_backend,
    SprintBackendConfig: load_sprint_backend,
    ReturnnControlBackendConfig: load_returnn_control_backend,
    LibrasrBackendConfig: load_librasr_backend,
    PocketsphinxBackendConfig: load_pocketsphinx_backend,
    ReplayBackendConfig: load_replay_backend,
}


def load_backend(config: BackendConfig) -> Backend:
    """Loads or starts what a configuration says, and waits until it is ready.

    Raises:
        ConfigError, LexiconError, DataError: a file that it names can't be read or is malformed.
        EngineStartError: workers don't get ready; EngineMismatchError: they aren't the same.
    """
    return _LOADERS[type(config)](config)
