"""Sprint and RASR executables as engines, in a configuration: under our control module, and under RETURNN's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sprint_bridge.backends.returnn_control import ReturnnControlBackendConfig
from sprint_bridge.backends.sprint import SprintBackendConfig, SprintLossConfig
from sprint_bridge.config.section import Section, plain_path, plain_paths
from sprint_bridge.config.workers import dump_workers, parse_workers

__all__ = ["dump_returnn_control", "dump_sprint", "parse_returnn_control", "parse_sprint"]

_CONFIG = "--config="


def parse_sprint(section: Section) -> SprintBackendConfig:
    """The configuration of a section."""
    losses = section.optional_section("losses")
    config = section.build(
        lambda: SprintBackendConfig(
            executable=section.path("executable"),
            arguments=_arguments(section),
            labels=section.path("labels"),
            silence=section.optional_text("silence"),
            blank=section.optional_text("blank"),
            lexicon=section.optional_path("lexicon"),
            extra_words=section.texts("extra_words"),
            alignment_cache=section.optional_path("alignment_cache"),
            allophones=section.optional_path("allophones"),
            probes=section.texts("probes"),
            digest_files=section.optional_paths("digest_files"),
            environment=section.texts_by_name("environment"),
            minimum_version=section.integer("minimum_version", 2, least=1),
            losses=None if losses is None else SprintLossConfig(_arguments(losses), parse_workers(losses)),
            workers=parse_workers(section),
            log=section.optional_path("log"),
        )
    )
    if losses is not None:
        losses.finish()
    section.finish()
    return config


def dump_sprint(config: SprintBackendConfig) -> dict[str, object]:
    """The configuration as plain values; paths are made absolute."""
    losses = config.losses
    return {
        "type": "sprint",
        "executable": plain_path(config.executable),
        "arguments": _plain_arguments(config.arguments),
        "labels": plain_path(config.labels),
        "silence": config.silence,
        "blank": config.blank,
        "lexicon": plain_path(config.lexicon),
        "extra_words": list(config.extra_words),
        "alignment_cache": plain_path(config.alignment_cache),
        "allophones": plain_path(config.allophones),
        "probes": list(config.probes),
        "digest_files": plain_paths(config.digest_files) or None,
        "environment": dict(config.environment),
        "minimum_version": config.minimum_version,
        "losses": None
        if losses is None
        else {"arguments": _plain_arguments(losses.arguments), **dump_workers(losses.workers)},
        "log": plain_path(config.log),
        **dump_workers(config.workers),
    }


def parse_returnn_control(section: Section) -> ReturnnControlBackendConfig:
    """The configuration of a section."""
    config = section.build(
        lambda: ReturnnControlBackendConfig(
            executable=section.path("executable"),
            arguments=_arguments(section),
            returnn=section.path("returnn"),
            labels=section.path("labels"),
            silence=section.optional_text("silence"),
            blank=section.optional_text("blank"),
            losses=section.flag("losses", False),
            control_options=section.texts_by_name("control_options"),
            minimum_version=section.integer("minimum_version", 2, least=1),
            digest_files=section.optional_paths("digest_files"),
            environment=section.texts_by_name("environment"),
            max_message_bytes=section.integer("max_message_bytes", 256 << 20, least=1),
            workers=parse_workers(section),
            log=section.optional_path("log"),
        )
    )
    section.finish()
    return config


def dump_returnn_control(config: ReturnnControlBackendConfig) -> dict[str, object]:
    """The configuration as plain values; paths are made absolute."""
    return {
        "type": "returnn_control",
        "executable": plain_path(config.executable),
        "arguments": _plain_arguments(config.arguments),
        "returnn": plain_path(config.returnn),
        "labels": plain_path(config.labels),
        "silence": config.silence,
        "blank": config.blank,
        "losses": config.losses,
        "control_options": dict(config.control_options),
        "minimum_version": config.minimum_version,
        "digest_files": plain_paths(config.digest_files) or None,
        "environment": dict(config.environment),
        "max_message_bytes": config.max_message_bytes,
        "log": plain_path(config.log),
        **dump_workers(config.workers),
    }


def _arguments(section: Section) -> tuple[str, ...]:
    """Arguments of an executable; a relative path of `--config` starts from the folder of the configuration, as other
    paths do, and not from wherever the server runs.
    """
    return tuple(
        f"{_CONFIG}{section.folder / argument.removeprefix(_CONFIG)}"
        if argument.startswith(_CONFIG)
        else argument
        for argument in section.texts("arguments")
    )


def _plain_arguments(arguments: Sequence[str]) -> list[str]:
    return [
        f"{_CONFIG}{Path(argument.removeprefix(_CONFIG)).absolute()}"
        if argument.startswith(_CONFIG)
        else argument
        for argument in arguments
    ]
