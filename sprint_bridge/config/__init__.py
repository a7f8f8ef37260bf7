"""The configuration of a server: typed, each key known, errors that name the key."""

from sprint_bridge.config.backend import BackendConfig
from sprint_bridge.config.limits import Limits
from sprint_bridge.config.local import LocalBackendConfig, RasrSetup
from sprint_bridge.config.server import ServeConfig, dump_config, parse_config, read_config

__all__ = [
    "BackendConfig",
    "Limits",
    "LocalBackendConfig",
    "RasrSetup",
    "ServeConfig",
    "dump_config",
    "parse_config",
    "read_config",
]
