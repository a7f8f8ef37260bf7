"""What stands behind a server, in a configuration: one of the engines, by its type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from seqtrain.errors import ConfigError
from sprint_bridge.backends.librasr import LibrasrBackendConfig
from sprint_bridge.backends.pocketsphinx import PocketsphinxBackendConfig
from sprint_bridge.backends.replay import ReplayBackendConfig
from sprint_bridge.backends.returnn_control import ReturnnControlBackendConfig
from sprint_bridge.backends.sprint import SprintBackendConfig
from sprint_bridge.config.executables import (
    dump_returnn_control,
    dump_sprint,
    parse_returnn_control,
    parse_sprint,
)
from sprint_bridge.config.hosted import dump_librasr, dump_pocketsphinx, parse_librasr, parse_pocketsphinx
from sprint_bridge.config.local import LocalBackendConfig, dump_local, parse_local
from sprint_bridge.config.recording import dump_replay, parse_replay
from sprint_bridge.config.section import Section

__all__ = ["BackendConfig", "dump_backend", "parse_backend"]

BackendConfig: TypeAlias = (
    LocalBackendConfig
    | SprintBackendConfig
    | ReturnnControlBackendConfig
    | LibrasrBackendConfig
    | PocketsphinxBackendConfig
    | ReplayBackendConfig
)

_PARSERS: dict[str, Callable[[Section], BackendConfig]] = {
    "local": parse_local,
    "sprint": parse_sprint,
    "returnn_control": parse_returnn_control,
    "librasr": parse_librasr,
    "pocketsphinx": parse_pocketsphinx,
    "replay": parse_replay,
}
_DUMPERS: dict[type, Callable[[Any], dict[str, object]]] = {
    LocalBackendConfig: dump_local,
    SprintBackendConfig: dump_sprint,
    ReturnnControlBackendConfig: dump_returnn_control,
    LibrasrBackendConfig: dump_librasr,
    PocketsphinxBackendConfig: dump_pocketsphinx,
    ReplayBackendConfig: dump_replay,
}


def parse_backend(section: Section) -> BackendConfig:
    """The configuration of a section, whose `type` says of which engine."""
    kind = section.text("type", "local")
    if kind not in _PARSERS:
        raise ConfigError(
            f"{section.key('type')} is {kind!r}; known are: {', '.join(_PARSERS)}", key=section.key("type")
        )
    return _PARSERS[kind](section)


def dump_backend(config: BackendConfig) -> dict[str, object]:
    """The configuration as plain values that `parse_backend` reads back; paths are made absolute."""
    return _DUMPERS[type(config)](config)
