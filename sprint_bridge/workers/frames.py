"""Frames between a supervisor and its workers: a message and named arrays, never a pickle.

    4 bytes  "sqtw"
    u16      version, 1
    u32      length of the header
    u64      length of the payload
    header   JSON: {"message": {…}, "arrays": [[name, dtype, [dimension, …]], …]}
    payload  the bytes of the arrays one after the other, little endian, C order

Numbers are little endian. Each length and each shape is held against `FrameLimits` before memory is taken for it.

This module needs Python 3.8 and numpy 1.20 alone, and neither torch, grpc nor seqtrain: it also runs inside a Sprint
executable, in the interpreter that this embeds.
"""

from __future__ import annotations

import json
import math
import os
import select
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

__all__ = [
    "ByteChannel",
    "ChannelClosedError",
    "ChannelTimeoutError",
    "Frame",
    "FrameChannel",
    "FrameError",
    "FrameLimits",
    "MalformedFrameError",
    "encode_frame",
    "read_frame",
]

_PREFIX = struct.Struct("<4sHIQ")
_MAGIC = b"sqtw"
_VERSION = 1
_DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in ("uint8", "int32", "uint32", "int64", "float16", "float32", "float64")
}
# Below this a copy is cheaper than a call of the system for each part.
_JOINED_BYTES = 1 << 16


class FrameError(Exception):
    """A frame didn't come through."""


class MalformedFrameError(FrameError, ValueError):
    """What came is no frame, or one that is larger than allowed."""


class ChannelClosedError(FrameError, EOFError):
    """The other side has closed its end, or has died."""


class ChannelTimeoutError(FrameError, TimeoutError):
    """The deadline passed before the frame was through."""


class FrameLimits(NamedTuple):
    """The largest frame that is taken from the other side."""

    header_bytes: int = 16 << 20
    payload_bytes: int = 1 << 30
    arrays: int = 64
    dimensions: int = 8


class Frame(NamedTuple):
    """A message, which JSON can say, and arrays by name."""

    message: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


def encode_frame(
    message: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None
) -> tuple[bytes, list[NDArray[Any]]]:
    """Prefix and header of a frame, and the arrays whose bytes follow.

    Raises:
        MalformedFrameError: an array has a dtype that frames don't carry.
        TypeError, ValueError: the message isn't one that JSON can say.
    """
    specifications = []
    parts = []
    for name, array in ({} if arrays is None else arrays).items():
        dtype = _DTYPES.get(array.dtype.name)
        if dtype is None:
            known = ", ".join(_DTYPES)
            raise MalformedFrameError(f"array {name!r} is of {array.dtype}; frames carry {known}")
        specifications.append([name, array.dtype.name, list(array.shape)])
        parts.append(np.asarray(array, dtype=dtype, order="C"))
    content = {"message": dict(message), "arrays": specifications}
    # ASCII, so that a name with stray surrogates comes through as well.
    header = json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")
    payload_length = sum(part.nbytes for part in parts)
    return _PREFIX.pack(_MAGIC, _VERSION, len(header), payload_length) + header, parts


def read_frame(fill: Callable[[memoryview], None], limits: FrameLimits | None = None) -> Frame:
    """Reads one frame from a source of bytes.

    Args:
        fill: fills a buffer with the next bytes, all of it, or raises.
        limits: the largest frame to take.

    Raises:
        MalformedFrameError: these bytes are no frame, or one beyond the limits.
        whatever `fill` raises.
    """
    limits = FrameLimits() if limits is None else limits
    prefix = bytearray(_PREFIX.size)
    fill(memoryview(prefix))
    magic, version, header_length, payload_length = _PREFIX.unpack(prefix)
    if magic != _MAGIC:
        raise MalformedFrameError(f"begins with {magic!r}, no frame does")
    if version != _VERSION:
        raise MalformedFrameError(f"is of version {version}, this side knows {_VERSION}")
    for what, length, limit in (
        ("header", header_length, limits.header_bytes),
        ("payload", payload_length, limits.payload_bytes),
    ):
        if length > limit:
            raise MalformedFrameError(f"has a {what} of {length} bytes, at most {limit} are taken")
    header = bytearray(header_length)
    fill(memoryview(header))
    message, specifications = _parse_header(bytes(header), payload_length, limits)
    arrays = {}
    for name, dtype, shape in specifications:
        array = np.empty(shape, dtype=dtype)
        if array.nbytes:
            fill(array.reshape(-1).view(np.uint8).data)
        arrays[name] = array
    return Frame(message, arrays)


def _parse_header(
    header: bytes, payload_length: int, limits: FrameLimits
) -> tuple[dict[str, Any], list[tuple[str, np.dtype[Any], tuple[int, ...]]]]:
    try:
        content = json.loads(header.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise MalformedFrameError(f"has a header that isn't JSON: {error}") from error
    if not isinstance(content, dict) or set(content) != {"message", "arrays"}:
        raise MalformedFrameError("has a header other than {message, arrays}")
    message, listed = content["message"], content["arrays"]
    if not isinstance(message, dict) or not isinstance(listed, list):
        raise MalformedFrameError("has a message that is no object, or arrays that are no list")
    if len(listed) > limits.arrays:
        raise MalformedFrameError(f"has {len(listed)} arrays, at most {limits.arrays} are taken")
    specifications: dict[str, tuple[str, np.dtype[Any], tuple[int, ...]]] = {}
    expected = 0
    for entry in listed:
        name, dtype, shape = _parse_array(entry, limits)
        if name in specifications:
            raise MalformedFrameError(f"has the array {name!r} twice")
        specifications[name] = name, dtype, shape
        expected += math.prod(shape) * dtype.itemsize
    if expected != payload_length:
        raise MalformedFrameError(f"has a payload of {payload_length} bytes, its arrays need {expected}")
    return message, list(specifications.values())


def _parse_array(entry: object, limits: FrameLimits) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    if not isinstance(entry, list) or len(entry) != 3:
        raise MalformedFrameError("has an array that isn't [name, dtype, shape]")
    name, dtype_name, shape = entry
    if not isinstance(name, str) or not isinstance(dtype_name, str) or not isinstance(shape, list):
        raise MalformedFrameError("has an array that isn't [name, dtype, shape]")
    dtype = _DTYPES.get(dtype_name)
    if dtype is None:
        raise MalformedFrameError(f"has an array of {dtype_name[:40]!r}; frames carry {', '.join(_DTYPES)}")
    if len(shape) > limits.dimensions:
        raise MalformedFrameError(
            f"has an array of {len(shape)} dimensions, at most {limits.dimensions} are taken"
        )
    size = dtype.itemsize
    for dimension in shape:
        if type(dimension) is not int or dimension < 0:
            raise MalformedFrameError(f"has an array with the dimension {dimension!r:.40}")
        # An empty array must not have dimensions either whose product overflows.
        size *= max(1, dimension)
        if size > limits.payload_bytes:
            raise MalformedFrameError(f"has an array of more than {limits.payload_bytes} bytes")
    return name, dtype, tuple(shape)


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is too large a number")
    return number


class ByteChannel:
    """Bytes over file descriptors: two pipes, or a socket twice. One thread at a time.

    Deadlines are readings of `time.monotonic()`; None waits for ever.

    Args:
        read_fd, write_fd: are set non-blocking; `close` closes them.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        for descriptor in (read_fd, write_fd):
            os.set_blocking(descriptor, False)

    def fill(self, buffer: memoryview, deadline: float | None = None) -> None:
        """Fills a buffer of bytes with what comes next.

        Raises:
            ChannelClosedError: the other side is gone.
            ChannelTimeoutError: not all of it was there before the deadline.
        """
        while len(buffer):
            try:
                count = os.readv(self._read_fd, [buffer])
            except BlockingIOError:
                _wait(self._read_fd, select.POLLIN, deadline)
                continue
            except ConnectionError as error:
                raise ChannelClosedError(f"the other side is gone: {error}") from error
            if count == 0:
                raise ChannelClosedError("the other side has closed the channel")
            buffer = buffer[count:]
            if len(buffer):
                _check(deadline)

    def write(self, content: memoryview, deadline: float | None = None) -> None:
        """Writes all of `content`.

        Raises:
            ChannelClosedError: the other side is gone.
            ChannelTimeoutError: it hadn't taken all of it before the deadline.
        """
        while len(content):
            try:
                count = os.write(self._write_fd, content)
            except BlockingIOError:
                _wait(self._write_fd, select.POLLOUT, deadline)
                continue
            except ConnectionError as error:
                raise ChannelClosedError(f"the other side is gone: {error}") from error
            content = content[count:]
            if len(content):
                _check(deadline)

    def close(self) -> None:
        """Closes the file descriptors. Harmless when repeated."""
        descriptors = {self._read_fd, self._write_fd} - {-1}
        self._read_fd = self._write_fd = -1
        for descriptor in descriptors:
            os.close(descriptor)


class FrameChannel:
    """Sends and receives frames.

    After an error it is of no use: the two sides don't agree any more where a frame begins.

    Args:
        channel: what the frames' bytes go over.
        limits: the largest frame to take.
    """

    def __init__(self, channel: ByteChannel, limits: FrameLimits | None = None) -> None:
        self._channel = channel
        self._limits = FrameLimits() if limits is None else limits

    def send(
        self,
        message: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]] | None = None,
        *,
        deadline: float | None = None,
    ) -> None:
        """Sends a frame, all of it.

        Raises:
            ChannelClosedError, ChannelTimeoutError: as `ByteChannel.write`.
            MalformedFrameError, TypeError, ValueError: as `encode_frame`; nothing was sent.
        """
        header, parts = encode_frame(message, arrays)
        if len(header) + sum(part.nbytes for part in parts) <= _JOINED_BYTES:
            self._channel.write(memoryview(b"".join([header, *(part.tobytes() for part in parts)])), deadline)
            return
        self._channel.write(memoryview(header), deadline)
        for part in parts:
            self._channel.write(part.reshape(-1).view(np.uint8).data, deadline)

    def receive(self, *, deadline: float | None = None) -> Frame:
        """The next frame.

        Raises:
            ChannelClosedError, ChannelTimeoutError: as `ByteChannel.fill`.
            MalformedFrameError: what came is no frame, or one beyond the limits.
        """
        return read_frame(lambda buffer: self._channel.fill(buffer, deadline), self._limits)


def _check(deadline: float | None) -> None:
    # A side that sends byte by byte must not get around the deadline.
    if deadline is not None and time.monotonic() > deadline:
        raise ChannelTimeoutError("the deadline has passed")


def _wait(descriptor: int, event: int, deadline: float | None) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    milliseconds = None if deadline is None else max(0, math.ceil((deadline - time.monotonic()) * 1000))
    if not poll.poll(milliseconds):
        raise ChannelTimeoutError("the deadline has passed")
