"""The configuration of a server."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from seqtrain.errors import ArgumentError, ConfigError, MissingDependencyError
from seqtrain.fsa import Transitions
from seqtrain.lexicon import CtcTopology, HmmTopology, Topology
from sprint_bridge.section import Section
from sprint_bridge.security import Tls

__all__ = ["Limits", "LocalBackendConfig", "ServeConfig", "dump_config", "parse_config", "read_config"]


@dataclass(frozen=True)
class Limits:
    """What a request may ask for. Lengths are in bytes of UTF-8."""

    max_batch: int = 1024
    max_name_length: int = 1024
    max_orthography_length: int = 65536
    max_concurrent_calls: int = 256
    max_request_bytes: int = 16 << 20
    max_stream_requests: int = 16
    max_score_bytes: int = 256 << 20
    max_shared_memory_bytes: int = 1 << 30


@dataclass(frozen=True)
class LocalBackendConfig:
    """Our own automaton builder.

    Attributes:
        lexicon: plain text, or Bliss XML where the name ends in .xml or .xml.gz.
        lexicon_probabilities: whether a plain lexicon has the probability of each variant in its second
            column.
        normalize_pronunciations: whether the weights of each word's variants are normalized first.
        transcripts: files of names and words: Kaldi's `text`, or JSON lines with `id` and `text`.
        topology: HMM or CTC.
        alignments: a file of alignments (.jsonl or .npz) to serve besides, or None.
    """

    lexicon: Path
    transcripts: tuple[Path, ...]
    topology: Topology = field(default_factory=HmmTopology)
    lexicon_probabilities: bool = False
    normalize_pronunciations: bool = False
    alignments: Path | None = None


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
        threads: that work on answers at a time.
        drain_seconds: that running calls get to end after SIGTERM.
    """

    backend: LocalBackendConfig
    listen: str | None = None
    tls: Tls | None = None
    tokens: Path | None = None
    insecure_loopback: bool = False
    metrics: str | None = None
    limits: Limits = field(default_factory=Limits)
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
    backend = root.section("backend")
    limits = root.section("limits")
    default = Limits()
    config = ServeConfig(
        backend=_local(backend),
        listen=root.optional_text("listen"),
        tls=_tls(root.optional_section("tls")),
        tokens=root.optional_path("tokens"),
        insecure_loopback=root.flag("insecure_loopback", False),
        metrics=root.optional_text("metrics"),
        limits=Limits(
            **{
                name: limits.integer(name, getattr(default, name), least=1)
                for name in Limits.__dataclass_fields__
            }
        ),
        threads=root.integer("threads", 4, least=1),
        drain_seconds=root.number("drain_seconds", 10.0, least=0.0),
    )
    limits.finish()
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


def _local(section: Section) -> LocalBackendConfig:
    kind = section.text("type", "local")
    if kind != "local":
        raise ConfigError(f"{section.key('type')} is {kind!r}; known is: local", key=section.key("type"))
    config = LocalBackendConfig(
        lexicon=section.path("lexicon"),
        transcripts=section.paths("transcripts"),
        topology=_topology(section.section("topology")),
        lexicon_probabilities=section.flag("lexicon_probabilities", False),
        normalize_pronunciations=section.flag("normalize_pronunciations", False),
        alignments=section.optional_path("alignments"),
    )
    section.finish()
    return config


def _topology(section: Section) -> Topology:
    kind = section.text("type", "hmm")
    topology: Topology
    if kind == "hmm":
        default = HmmTopology()
        topology = HmmTopology(
            states_per_phone=section.integer("states_per_phone", default.states_per_phone, least=1),
            phone=_transitions(section.section("phone")),
            silence=_transitions(section.section("silence")),
            silence_probability=section.number(
                "silence_probability", default.silence_probability, least=0.0, most=1.0
            ),
            edge_silence_probability=section.optional_number("edge_silence_probability", least=0.0, most=1.0),
        )
    elif kind == "ctc":
        topology = CtcTopology(blank=section.text("blank", CtcTopology().blank))
    else:
        raise ConfigError(f"{section.key('type')} is {kind!r}; known are: hmm, ctc", key=section.key("type"))
    section.finish()
    return topology


def _transitions(section: Section) -> Transitions:
    """Either probabilities (`loop_probability`, `skip_probability`) or log weights (`loop`, `forward`,
    `skip`).
    """
    default = Transitions()
    if "loop_probability" in section:
        loop = section.number("loop_probability", least=0.0, most=1.0)
        skip = section.number("skip_probability", 0.0, least=0.0, most=1.0)
        section.finish()
        try:
            return Transitions.from_probabilities(loop=loop, skip=skip)
        except ArgumentError as error:
            raise ConfigError(
                f"{section.key('skip_probability')}: {error}", key=section.key("skip_probability")
            ) from error
    weights = {name: section.number(name, getattr(default, name)) for name in ("loop", "forward", "skip")}
    section.finish()
    try:
        return Transitions(**weights)
    except ArgumentError as error:
        raise ConfigError(
            f"{section.key(error.argument)}: {error}", key=section.key(error.argument)
        ) from error


def dump_config(config: ServeConfig) -> dict[str, object]:
    """The configuration as plain values that `parse_config` reads back; paths are made absolute."""
    backend = config.backend
    return {
        "listen": config.listen,
        "tls": None
        if config.tls is None
        else {
            name: None if path is None else str(path.absolute()) for name, path in vars(config.tls).items()
        },
        "tokens": None if config.tokens is None else str(config.tokens.absolute()),
        "insecure_loopback": config.insecure_loopback,
        "metrics": config.metrics,
        "backend": {
            "type": "local",
            "lexicon": str(backend.lexicon.absolute()),
            "transcripts": [str(path.absolute()) for path in backend.transcripts],
            "topology": backend.topology.describe(),
            "lexicon_probabilities": backend.lexicon_probabilities,
            "normalize_pronunciations": backend.normalize_pronunciations,
            "alignments": None if backend.alignments is None else str(backend.alignments.absolute()),
        },
        "limits": asdict(config.limits),
        "threads": config.threads,
        "drain_seconds": config.drain_seconds,
    }
