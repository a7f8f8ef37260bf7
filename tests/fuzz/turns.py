"""How long a fuzz takes: seconds on the command line; in tests turns, which are as many on a busy machine."""

from __future__ import annotations

import time
from collections.abc import Iterator


def turns_for(seconds: float) -> Iterator[None]:
    """Turns until the time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
