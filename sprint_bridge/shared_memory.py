"""Regions of shared memory that clients have registered.

They are read and written as files: a client that shrinks its region under us gets an error, where a mapping would
end this process.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray

from seqtrain.aligner.v1 import aligner_pb2
from seqtrain.aligner.v1.regions import ALIGNMENT, FOLDER, NAME, is_abandoned, is_private
from sprint_bridge.refused import RefusedError

__all__ = ["SharedRange", "SharedRegions"]


@dataclass(frozen=True)
class _Region:
    descriptor: int
    size: int


@dataclass(frozen=True)
class SharedRange:
    """A checked part of a region; its descriptor is its own."""

    name: str
    descriptor: int
    offset: int
    size: int

    def read(self) -> NDArray[np.uint8]:
        """The bytes as they are now.

        Raises:
            RefusedError: the region has shrunk.
        """
        data = np.empty(self.size, dtype=np.uint8)
        done = 0
        while done < self.size:
            count = os.preadv(self.descriptor, [data.data[done:]], self.offset + done)
            if count == 0:
                raise RefusedError(
                    grpc.StatusCode.INVALID_ARGUMENT, f"region {self.name} has shrunk since it was registered"
                )
            done += count
        return data

    def write(self, offset: int, data: memoryview) -> None:
        """Puts bytes at `offset` within the range."""
        done = 0
        while done < len(data):
            done += os.pwrite(self.descriptor, data[done:], self.offset + offset + done)

    def close(self) -> None:
        """Lets go of the region."""
        os.close(self.descriptor)


class SharedRegions:
    """Regions by name, at most `limit` bytes of them; those whose client has died make room for new ones."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._regions: dict[str, _Region] = {}

    def register(self, name: str, size: int) -> None:
        """Makes a region known.

        Raises:
            RefusedError: with the status that the protocol says.
        """
        if not NAME.fullmatch(name):
            raise RefusedError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{name!r:.80} isn't the name of a region: seqtrain-<32 hexadecimal digits>",
            )
        with self._lock:
            if name in self._regions:
                return
            self._make_room(size)
            try:
                descriptor = os.open(FOLDER / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as error:
                raise RefusedError(
                    grpc.StatusCode.NOT_FOUND, f"there is no region {name} on this host: {error.strerror}"
                ) from error
            found = os.fstat(descriptor).st_size
            fault = None
            if not is_private(descriptor):
                fault = RefusedError(
                    grpc.StatusCode.PERMISSION_DENIED,
                    f"region {name} isn't this server's user's alone (mode 0600)",
                )
            elif found != size or size < 1:
                fault = RefusedError(
                    grpc.StatusCode.INVALID_ARGUMENT, f"region {name} has {found} bytes, not {size}"
                )
            if fault is not None:
                os.close(descriptor)
                raise fault
            self._regions[name] = _Region(descriptor, size)

    def unregister(self, name: str) -> None:
        """Forgets a region, if it is known."""
        with self._lock:
            self._drop(name)

    def range(self, part: aligner_pb2.SharedMemoryRange, *, size: int) -> SharedRange:
        """A range of a region, which must be `size` bytes.

        Raises:
            RefusedError: the region isn't registered, or the range doesn't lie in it.
        """
        with self._lock:
            region = self._regions.get(part.name)
            if region is None:
                raise RefusedError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"region {part.name!r:.80} isn't registered with this server",
                )
            end = part.offset + part.bytes
            if part.bytes != size or part.offset % ALIGNMENT or end > region.size:
                raise RefusedError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"bytes {part.offset} … {end} of a region of {region.size}, for {size} bytes of scores: the range "
                    f"must lie in the region, begin at a multiple of {ALIGNMENT}, and have that size",
                )
            # A descriptor of its own: another call may unregister the region meanwhile.
            return SharedRange(part.name, os.dup(region.descriptor), part.offset, size)

    def close(self) -> None:
        """Forgets all."""
        with self._lock:
            for name in list(self._regions):
                self._drop(name)

    def _make_room(self, size: int) -> None:
        for name, region in list(self._regions.items()):
            if is_abandoned(region.descriptor):
                with contextlib.suppress(OSError):
                    (FOLDER / name).unlink()
                self._drop(name)
        used = sum(region.size for region in self._regions.values())
        if used + size > self._limit:
            raise RefusedError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"a region of {size} bytes beside {used}: all together may have {self._limit} "
                "(max_shared_memory_bytes)",
            )

    def _drop(self, name: str) -> None:
        region = self._regions.pop(name, None)
        if region is not None:
            os.close(region.descriptor)
