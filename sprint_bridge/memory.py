"""How the server's process deals with memory that it has freed."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_KEPT = 32 << 20  # the most that glibc takes
_MOST_KEPT = 256 << 20


def keep_freed_memory() -> bool:
    """Lets this process keep up to 256 MiB of freed memory, for the next call.

    Messages of 1 MiB come and go. glibc gives that much back to the system and takes it anew, page by page, which takes
    longer than all that is done with the bytes.

    Returns whether the C library takes this; only glibc does.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)) and bool(mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT))
