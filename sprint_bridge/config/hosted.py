"""Engines that our own worker processes import, in a configuration: librasr and PocketSphinx."""

from __future__ import annotations

from sprint_bridge.backends.librasr import LibrasrBackendConfig
from sprint_bridge.backends.pocketsphinx import PocketsphinxBackendConfig
from sprint_bridge.config.section import Section, plain_path, plain_paths
from sprint_bridge.config.workers import dump_workers, parse_workers

__all__ = ["dump_librasr", "dump_pocketsphinx", "parse_librasr", "parse_pocketsphinx"]


def parse_librasr(section: Section) -> LibrasrBackendConfig:
    """The configuration of a section."""
    config = LibrasrBackendConfig(
        configuration=section.path("configuration"),
        labels=section.path("labels"),
        silence=section.optional_text("silence"),
        blank=section.optional_text("blank"),
        lexicon=section.optional_path("lexicon"),
        extra_words=section.texts("extra_words"),
        settings=section.texts_by_name("settings"),
        digest_files=section.optional_paths("digest_files"),
        environment=section.texts_by_name("environment"),
        workers=parse_workers(section),
        log=section.optional_path("log"),
    )
    section.finish()
    return config


def dump_librasr(config: LibrasrBackendConfig) -> dict[str, object]:
    """The configuration as plain values; paths are made absolute."""
    return {
        "type": "librasr",
        "configuration": plain_path(config.configuration),
        "labels": plain_path(config.labels),
        "silence": config.silence,
        "blank": config.blank,
        "lexicon": plain_path(config.lexicon),
        "extra_words": list(config.extra_words),
        "settings": dict(config.settings),
        "digest_files": plain_paths(config.digest_files) or None,
        "environment": dict(config.environment),
        "log": plain_path(config.log),
        **dump_workers(config.workers),
    }


def parse_pocketsphinx(section: Section) -> PocketsphinxBackendConfig:
    """The configuration of a section."""
    config = section.build(
        lambda: PocketsphinxBackendConfig(
            manifest=section.path("manifest"),
            pronunciations=section.optional_path("pronunciations"),
            frame_shift=section.seconds("frame_shift", 0.01),
            states_per_phone=section.integer("states_per_phone", 1, least=1),
            silence=section.text("silence", "[SILENCE]"),
            workers=parse_workers(section),
            log=section.optional_path("log"),
        )
    )
    section.finish()
    return config


def dump_pocketsphinx(config: PocketsphinxBackendConfig) -> dict[str, object]:
    """The configuration as plain values; paths are made absolute."""
    return {
        "type": "pocketsphinx",
        "manifest": plain_path(config.manifest),
        "pronunciations": plain_path(config.pronunciations),
        "frame_shift": config.frame_shift,
        "states_per_phone": config.states_per_phone,
        "silence": config.silence,
        "log": plain_path(config.log),
        **dump_workers(config.workers),
    }
