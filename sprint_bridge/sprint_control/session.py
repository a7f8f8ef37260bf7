"""The one connection that this process has to its supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sprint_bridge.sprint_control.exchange import Exchange
from sprint_bridge.workers.frames import ByteChannel, FrameChannel

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Session", "current_session", "session_of"]


class Session:
    """The connection, and what passes between its thread and Sprint's where Sprint drives.

    Attributes:
        channel: to the supervisor.
        exchange: segments and scores to Sprint, losses and signals back.
        version: of Sprint's control interface, None as long as Sprint hasn't said.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.channel = FrameChannel(ByteChannel(read_fd, write_fd))
        self.exchange = Exchange()
        self.version: Any = None


# Sprint calls functions of this module and makes objects of it in an order that depends on its configuration; all of
# them are about the one pair of pipes that it was started with.
_sessions: dict[str, Session] = {}


def session_of(config: str) -> Session:
    """The session of a configuration, which Sprint hands on as it stands on its command line.

    Raises:
        ValueError: it doesn't name the pipes.
    """
    options = {}
    for part in config.split(","):
        key, _, value = part.partition(":")
        options[key.strip()] = value.strip()
    for key in ("c2p_fd", "p2c_fd"):
        if not options.get(key, "").isdigit():
            raise ValueError(f"the configuration {config!r} must have {key}, a file descriptor")
    key = "{p2c_fd} {c2p_fd}".format(**options)
    if key not in _sessions:
        _sessions[key] = Session(int(options["p2c_fd"]), int(options["c2p_fd"]))
    return _sessions[key]


def current_session() -> Session:
    """The session that there is.

    Raises:
        RuntimeError: there is none yet.
    """
    if not _sessions:
        raise RuntimeError("Sprint hasn't called init or getSegmentList")
    return next(iter(_sessions.values()))
