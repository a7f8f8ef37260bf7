"""What a worker does all day: take a request, answer it.

Every request has an `id`, which the answer carries back, and an `operation`. Two are the loop's own: `ping`, answered
at once, and `exit`. An answer that has an `error`, {"kind": …, "message": …}, says what is wrong with that one item.

As `frames`, this module needs Python 3.8 and numpy alone.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from sprint_bridge.workers.frames import ChannelClosedError, Frame, FrameChannel

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["answer_frames", "failure"]


def failure(kind: str, message: str, **fields: Any) -> Frame:
    """The answer that says what is wrong with an item; the kinds are those of `workers.items`."""
    return Frame({"error": dict(kind=kind, message=message, **fields)}, {})


def answer_frames(channel: FrameChannel, handle: Callable[[Frame], Frame]) -> None:
    """Answers requests until the supervisor says `exit` or is gone.

    Args:
        channel: to the supervisor.
        handle: answers a request. What it raises becomes an error of the item, and is printed.

    Raises:
        FrameError: the channel failed otherwise.
    """
    while True:
        try:
            request = channel.receive()
            operation = request.message.get("operation")
            if operation == "exit":
                return
            answer = Frame({}, {}) if operation == "ping" else _handled(handle, request)
            channel.send(dict(answer.message, id=request.message.get("id")), answer.arrays)
        except ChannelClosedError:
            return


def _handled(handle: Callable[[Frame], Frame], request: Frame) -> Frame:
    try:
        return handle(request)
    except Exception as error:
        traceback.print_exc()
        return failure("failed", f"{type(error).__name__}: {error}")
