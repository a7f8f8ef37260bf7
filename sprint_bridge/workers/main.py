"""A worker that hosts an engine of its own process.

    python -m sprint_bridge.workers.main ENGINE READ_FD WRITE_FD

Its first request is `describe`, with the engine's configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from seqtrain.errors import SeqtrainError
from sprint_bridge.backends.base import Backend
from sprint_bridge.workers.errors import EngineMissingError
from sprint_bridge.workers.frames import ByteChannel, Frame, FrameChannel
from sprint_bridge.workers.hosting import answer_request, describe
from sprint_bridge.workers.loop import answer_frames, failure

__all__ = ["ENGINES", "Host", "main"]


def _load_local(configuration: Mapping[str, Any]) -> Backend:
    from sprint_bridge.backends.local import load_local_engine
    from sprint_bridge.config.local import parse_local
    from sprint_bridge.config.section import Section

    section = Section(configuration, name="backend", folder=Path.cwd())
    section.choice("type", "local", ("local",))
    return load_local_engine(parse_local(section))


def _load_librasr(configuration: Mapping[str, Any]) -> Backend:
    from sprint_bridge.backends.librasr import LibrasrEngine

    return LibrasrEngine.from_plain(configuration)


def _load_pocketsphinx(configuration: Mapping[str, Any]) -> Backend:
    from sprint_bridge.backends.pocketsphinx_engine import PocketsphinxEngine

    return PocketsphinxEngine.from_plain(configuration)


# Each is imported by the worker that hosts it alone.
ENGINES: dict[str, Callable[[Mapping[str, Any]], Backend]] = {
    "local": _load_local,
    "librasr": _load_librasr,
    "pocketsphinx": _load_pocketsphinx,
}


class Host:
    """Loads the engine at the first request, and answers the others with it."""

    def __init__(self, load: Callable[[Mapping[str, Any]], Backend]) -> None:
        self._load = load
        self._backend: Backend | None = None

    def answer(self, request: Frame) -> Frame:
        """The answer to a request."""
        if request.message["operation"] == "describe":
            try:
                self._backend = self._load(request.message["configuration"])
            except EngineMissingError as error:
                return failure("missing_module", str(error))
            except SeqtrainError as error:
                return failure("failed", str(error))
            return Frame(describe(self._backend), {})
        if self._backend is None:
            return failure("failed", "the engine hasn't been loaded")
        return answer_request(self._backend, request)


def main(arguments: list[str]) -> int:
    """Answers requests until there are no more."""
    engine, read_fd, write_fd = arguments
    # Workers are there to run side by side: each gets one core.
    torch.set_num_threads(1)
    answer_frames(FrameChannel(ByteChannel(int(read_fd), int(write_fd))), Host(ENGINES[engine]).answer)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
