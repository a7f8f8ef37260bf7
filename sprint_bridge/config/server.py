"""A server, in a configuration: where it listens, who may call, what stands behind it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from seqtrain.errors import ConfigError, MissingDependencyError
from sprint_bridge.config.backend import BackendConfig, dump_backend, parse_backend
from sprint_bridge.config.limits import Limits, parse_limits
from sprint_bridge.config.section import Section, plain_path
from sprint_bridge.security import Tls

__all__ = ["ServeConfig", "dump_config", "parse_config", "read_config"]


@dataclass(frozen=True)
class ServeConfig:
    """A server.

    Attributes:
        backend: what stands behind it.
        listen: `unix:/path` or `host:port`; None: a unix socket in a new private directory.
        tls: certificate of a TCP port, which needs one.
        tokens: file of the callers' tokens, or None: whoever reaches the address may call.
        insecure_loopback: allows a TCP port of this host without TLS.
        metrics: `host:port` where Prometheus may fetch the server's counters, or None.
        limits: what a request may ask for.
        cache_bytes: memory for automata that were asked for before; the least recently used go first. 0: none.
        threads: that work on answers at a time.
        drain_seconds: that running calls get to end after SIGTERM.
    """

    backend: BackendConfig
    listen: str | None = None
    tls: Tls | None = None
    tokens: Path | None = None
    insecure_loopback: bool = False
    metrics: str | None = None
    limits: Limits = field(default_factory=Limits)
    cache_bytes: int = 256 << 20
    threads: int = 4
    drain_seconds: float = 10.0


def read_config(path: Path) -> ServeConfig:
    """Reads a configuration: JSON where the name ends in .json, YAML where it ends in .yaml or .yml.

    Relative paths in it start from its own folder.

    Raises:
        ConfigError: the file can't be read; a key is unknown, missing or of the wrong type: names the key.
        MissingDependencyError: YAML, and PyYAML isn't installed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path} can't be read: {error}", key="") from error
    if path.suffix == ".json":
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"configuration {path} isn't JSON: {error}", key="") from error
    elif path.suffix in (".yaml", ".yml"):
        values = _load_yaml(text, path)
    else:
        raise ConfigError(f"configuration {path} must end in .json, .yaml or .yml", key="")
    return parse_config(values, folder=path.parent)


def parse_config(values: object, *, folder: Path) -> ServeConfig:
    """The configuration that a mapping says; relative paths start from `folder`.

    Raises:
        ConfigError: a key is unknown, missing or of the wrong type: names the key.
    """
    root = Section(values, name="", folder=folder)
    config = ServeConfig(
        backend=parse_backend(root.section("backend")),
        listen=root.optional_text("listen"),
        tls=_tls(root.optional_section("tls")),
        tokens=root.optional_path("tokens"),
        insecure_loopback=root.flag("insecure_loopback", False),
        metrics=root.optional_text("metrics"),
        limits=parse_limits(root.section("limits")),
        cache_bytes=root.integer("cache_bytes", 256 << 20, least=0),
        threads=root.integer("threads", 4, least=1),
        drain_seconds=root.number("drain_seconds", 10.0, least=0.0),
    )
    root.finish()
    return config


def _tls(section: Section | None) -> Tls | None:
    if section is None:
        return None
    tls = Tls(
        certificate=section.path("certificate"),
        key=section.path("key"),
        client_ca=section.optional_path("client_ca"),
    )
    section.finish()
    return tls


def _load_yaml(text: str, path: Path) -> object:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise MissingDependencyError("pyyaml", extra="bridge") from error
    try:
        # The safe loader builds plain values only; it runs nothing.
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"configuration {path} isn't YAML: {error}", key="") from error


def dump_config(config: ServeConfig) -> dict[str, object]:
    """The configuration as plain values that `parse_config` reads back; paths are made absolute."""
    return {
        "listen": config.listen,
        "tls": None
        if config.tls is None
        else {name: plain_path(path) for name, path in vars(config.tls).items()},
        "tokens": plain_path(config.tokens),
        "insecure_loopback": config.insecure_loopback,
        "metrics": config.metrics,
        "backend": dump_backend(config.backend),
        "limits": asdict(config.limits),
        "cache_bytes": config.cache_bytes,
        "threads": config.threads,
        "drain_seconds": config.drain_seconds,
    }
