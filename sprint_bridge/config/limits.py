"""What a request may ask for."""

from __future__ import annotations

from dataclasses import dataclass

from sprint_bridge.config.section import Section

__all__ = ["Limits", "parse_limits"]


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


def parse_limits(section: Section) -> Limits:
    """The limits of a section."""
    default = Limits()
    limits = Limits(
        **{
            name: section.integer(name, getattr(default, name), least=1)
            for name in Limits.__dataclass_fields__
        }
    )
    section.finish()
    return limits
