"""How many workers an engine gets, and how long they may take."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from seqtrain.errors import ConfigError

__all__ = ["WorkerSettings"]


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of a pool of workers; times are in seconds.

    Attributes:
        instances: workers that run side by side.
        item_timeout: an item that takes longer is taken for one that hangs, and its worker is killed.
        start_timeout: for a worker to load and say what it is.
        start_attempts: failed starts in a row after which a worker counts as down. Items wait for a worker as long as
            one isn't down.
        restart_delay: before the first restart in a row; each further one waits twice as long.
        longest_restart_delay: where this doubling ends.
        ping_interval: between two looks at whether an idle worker still answers.
        ping_timeout: for that answer.
        stop_timeout: for a worker that was asked to end.
        max_quarantined: items remembered as poisonous; the oldest is forgotten first.
    """

    instances: int = 1
    item_timeout: float = 30.0
    start_timeout: float = 300.0
    start_attempts: int = 3
    restart_delay: float = 0.1
    longest_restart_delay: float = 10.0
    ping_interval: float = 30.0
    ping_timeout: float = 5.0
    stop_timeout: float = 2.0
    max_quarantined: int = 10000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and value < 1:
                raise ConfigError(
                    f"workers.{field.name} must be at least 1, found {value}", key=f"workers.{field.name}"
                )
            if field.type == "float" and not (0 < value < math.inf):
                raise ConfigError(
                    f"workers.{field.name} must be a positive number of seconds, found {value}",
                    key=f"workers.{field.name}",
                )
