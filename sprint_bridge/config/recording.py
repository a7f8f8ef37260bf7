"""A recording as an engine, in a configuration."""

from __future__ import annotations

from sprint_bridge.backends.replay import ReplayBackendConfig
from sprint_bridge.config.section import Section, plain_path

__all__ = ["dump_replay", "parse_replay"]


def parse_replay(section: Section) -> ReplayBackendConfig:
    """The configuration of a section."""
    config = ReplayBackendConfig(recording=section.path("recording"), recover=section.flag("recover", False))
    section.finish()
    return config


def dump_replay(config: ReplayBackendConfig) -> dict[str, object]:
    """The configuration as plain values; paths are made absolute."""
    return {"type": "replay", "recording": plain_path(config.recording), "recover": config.recover}
