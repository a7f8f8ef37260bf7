"""A region of shared memory that a client makes and lends to a server on the same host."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import uuid
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.aligner.v1.regions import ALIGNMENT, FOLDER, is_abandoned, is_private

__all__ = ["SharedRegion", "aligned"]


def aligned(size: int) -> int:
    """The next offset at which a range may begin."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class SharedRegion:
    """`size` bytes that go away with `close`, or with the next region that is made after this process was killed.

    Raises:
        OSError: there is no shared memory here, or too little.
    """

    def __init__(self, size: int) -> None:
        _sweep()
        self.name = f"seqtrain-{uuid.uuid4().hex}"
        self.size = size
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(FOLDER / self.name, flags, 0o600)
        try:
            # Held until this process ends, however it ends: so others can tell.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            # Reserved now: memory that is lacking is an error here, not a signal at the first write.
            os.posix_fallocate(self._descriptor, 0, size)
            self._memory = mmap.mmap(self._descriptor, size)
        except BaseException:
            self._remove()
            raise

    def array(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array in the region."""
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._memory, dtype=dtype, count=count, offset=offset).reshape(shape)

    def close(self) -> None:
        """Removes the region."""
        # Arrays into it keep the memory until they go themselves.
        with contextlib.suppress(BufferError):
            self._memory.close()
        self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (FOLDER / self.name).unlink()
        os.close(self._descriptor)


def _sweep() -> None:
    """Removes this user's regions whose process is gone."""
    for path in FOLDER.glob("seqtrain-*"):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if is_private(descriptor) and is_abandoned(descriptor):
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
