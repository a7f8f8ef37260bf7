"""Regions of shared memory between a client and a server on one host: their names, and who may hold one.

A region is a file in /dev/shm of the user's own, mode 0600. Its client holds a lock on it as long as it lives, so that
anybody can tell a region in use from one that a killed process left behind.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from pathlib import Path

__all__ = ["ALIGNMENT", "FOLDER", "NAME", "Region", "is_abandoned", "is_private"]

FOLDER = Path("/dev/shm")  # where POSIX says nothing, Linux says this
NAME = re.compile(r"seqtrain-[0-9a-f]{32}")

ALIGNMENT = 64
"""Ranges begin at multiples of this."""

Region = int
"""The descriptor of an open region."""


def is_private(region: Region) -> bool:
    """Whether the region is a plain file of this process's user, which nobody else may open."""
    status = os.fstat(region)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def is_abandoned(region: Region) -> bool:
    """Whether no client holds the region any more."""
    try:
        fcntl.flock(region, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(region, fcntl.LOCK_UN)
    return True
