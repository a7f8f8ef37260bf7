"""The items of an alignment in bytes: run lengths without weights, or weighted.

Run lengths: u32 n < 2³¹ items, then stretches until there are n. A stretch begins with an s8 k: for k > 0, k labels
(u32) follow, one for each of the next k frames; for k < 0, one label, which stands for |k| frames; for k = 0 there are
no items, but a u32, the frame at which the next stretch begins.

Weighted: u32 2³¹ + version, the number of items, then frames until there are as many. A frame begins with twice the
number of its items, plus 1 where its time follows, which else is that of the frame before plus 1 (0 for the first).
Each item is a label and a weight: u16, in units of 1/65535, in version 1, float32 in version 2. Numbers other than
weights are packed: seven bits a byte, the lowest first, the top bit set in all bytes but the last.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seqtrain.align.sprint_cache.layout import U32

__all__ = [
    "MAX_ITEMS",
    "WEIGHTED",
    "Items",
    "MalformedError",
    "decode_packed",
    "decode_run_lengths",
    "decode_weighted",
    "encode_packed",
    "encode_run_lengths",
    "encode_weighted",
    "take",
]

WEIGHTED = 1 << 31
MAX_ITEMS = 1 << 24

_MOST_IN_STRETCH = 128  # s8
_LONGEST = 127
_WEIGHT_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<u2"), 2: np.dtype("<f4")}
_U16_ONE = 65535


class MalformedError(ValueError):
    """What is wrong with the bytes; the reader of the entry adds where they stand."""


class Items(NamedTuple):
    """Decoded items, and the position behind them; `version` is None for run lengths."""

    times: NDArray[np.int64]
    labels: NDArray[np.uint32]
    weights: NDArray[np.float32] | None
    version: int | None
    end: int


def take(payload: bytes, at: int, length: int, what: str) -> bytes:
    """Bytes from a position on.

    Raises:
        MalformedError: there are fewer.
    """
    if length > len(payload) - at:
        raise MalformedError(f"is truncated: {what} needs {length} bytes at byte {at} of {len(payload)}")
    return payload[at : at + length]


def _check_count(number: int, max_items: int) -> None:
    if number > max_items:
        raise MalformedError(
            f"says that it has {number} items, and at most {max_items} are read; pass max_items if it has"
        )


def decode_run_lengths(payload: bytes, at: int, number: int, *, max_items: int) -> Items:
    """The items of an alignment without weights.

    Raises:
        MalformedError: truncated, more items than it says, or times past 32 bits.
    """
    _check_count(number, max_items)
    if -(-number // _MOST_IN_STRETCH) * (1 + U32.size) > len(payload) - at:
        raise MalformedError(
            f"is truncated: says that it has {number} items, and {len(payload) - at} bytes are left"
        )
    times = np.empty(number, dtype=np.int64)
    labels = np.empty(number, dtype=np.uint32)
    found = time = 0
    while found < number:
        length = int.from_bytes(take(payload, at, 1, "a run length"), "little", signed=True)
        at += 1
        if length == 0:
            (time,) = U32.unpack(take(payload, at, U32.size, "a time"))
            at += U32.size
            continue
        count, stored = (length, length) if length > 0 else (-length, 1)
        values = np.frombuffer(take(payload, at, stored * U32.size, "a stretch of labels"), dtype="<u4")
        at += stored * U32.size
        if found + count > number:
            raise MalformedError(
                f"says that it has {number} items, and a stretch of {count} begins behind {found}"
            )
        if time + count > 1 << 32:
            raise MalformedError(f"a stretch of {count} items begins at frame {time}, and times have 32 bits")
        times[found : found + count] = np.arange(time, time + count)
        labels[found : found + count] = values
        found += count
        time += count
    return Items(times, labels, None, None, at)


def encode_run_lengths(times: NDArray[np.int64], labels: NDArray[np.uint32]) -> bytes:
    """The bytes behind the number of items; stretches are cut as RASR cuts them.

    That is: two or more equal labels become a repetition; other labels a list, which ends before a label that repeats
    its last one. Behind a list the time is always written, also where it just goes on.
    """
    count = len(times)
    follows = np.zeros(count + 1, dtype=bool)  # whether an item stands one frame behind the item before it
    follows[1:count] = np.diff(times) == 1
    repeats = np.zeros(count + 1, dtype=bool)  # whether it has the same label, too
    repeats[1:count] = follows[1:count] & (labels[1:] == labels[:-1])
    follow, repeat = follows.tolist(), repeats.tolist()
    encoded = np.asarray(labels, dtype="<u4").tobytes()
    content = bytearray()
    first, expected = 0, 0
    while first < count:
        time = int(times[first])
        if time != expected:
            content += b"\0" + U32.pack(time)
        last = first + 1
        if repeat[last]:
            while repeat[last] and last - first < _LONGEST:
                last += 1
            content.append((first - last) % 256)
            content += encoded[4 * first : 4 * first + 4]
            expected = time + last - first
        else:
            while follow[last] and not repeat[last] and last - first < _LONGEST:
                last += 1
            content.append(last - first)
            content += encoded[4 * first : 4 * last]
            expected = -1
        first = last
    return bytes(content)


def decode_packed(payload: bytes, at: int, what: str) -> tuple[int, int]:
    """A packed number of at most 32 bits, and the position behind it.

    Raises:
        MalformedError: truncated, or longer.
    """
    value = shift = 0
    while True:
        if at >= len(payload):
            raise MalformedError(f"is truncated: {what} goes on at byte {at} of {len(payload)}")
        byte = payload[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 28:
            break
    if byte >= 0x80 or value >= 1 << 32:
        raise MalformedError(f"{what} is a number of more than 32 bits before byte {at}")
    return value, at


def encode_packed(value: int) -> bytes:
    """The inverse of `decode_packed`."""
    content = bytearray()
    while value >= 0x80:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)


def decode_weighted(payload: bytes, at: int, version: int, *, max_items: int) -> Items:
    """The items of a weighted alignment.

    Raises:
        MalformedError: an unknown version, truncated, more items than it says, or times past 32 bits.
    """
    kind = _WEIGHT_DTYPES.get(version)
    if kind is None:
        raise MalformedError(f"is weighted in version {version}; known are 1 and 2")
    number, at = decode_packed(payload, at, "the number of items")
    _check_count(number, max_items)
    if number * (1 + kind.itemsize) > len(payload) - at:
        raise MalformedError(
            f"is truncated: says that it has {number} items, and {len(payload) - at} bytes are left"
        )
    times = np.empty(number, dtype=np.int64)
    labels = np.empty(number, dtype=np.uint32)
    places = np.empty(number, dtype=np.int64)
    found, time = 0, -1
    while found < number:
        twice, at = decode_packed(payload, at, "a frame")
        time += 1
        if twice & 1:
            time, at = decode_packed(payload, at, "a time")
        count = twice >> 1
        if found + count > number:
            raise MalformedError(
                f"says that it has {number} items, and a frame of {count} begins behind {found}"
            )
        if time >= 1 << 32:
            raise MalformedError("a frame follows the last one of 32 bits")
        times[found : found + count] = time
        for item in range(found, found + count):
            labels[item], at = decode_packed(payload, at, "a label")
            places[item] = at
            at += kind.itemsize
        found += count
    if at > len(payload):
        raise MalformedError(f"is truncated: the last weight ends at byte {at} of {len(payload)}")
    bytes_of_weights = np.frombuffer(payload, dtype=np.uint8)[places[:, None] + np.arange(kind.itemsize)]
    weights = bytes_of_weights.reshape(-1).view(kind).astype(np.float32)
    if version == 1:
        weights /= np.float32(_U16_ONE)
    return Items(times, labels, weights, version, at)


def encode_weighted(
    times: NDArray[np.int64], labels: NDArray[np.uint32], weights: NDArray[np.float32], version: int
) -> bytes:
    """The bytes behind the version."""
    kind = _WEIGHT_DTYPES[version]
    stored = np.rint(weights.astype(np.float64) * _U16_ONE) if version == 1 else weights
    encoded = stored.astype(kind).tobytes()
    content = bytearray(encode_packed(len(times)))
    values = labels.tolist()
    bounds = [*np.flatnonzero(np.append(True, np.diff(times) != 0)[: len(times)]).tolist(), len(times)]
    expected = 0
    for first, last in pairwise(bounds):
        time = int(times[first])
        content += encode_packed(2 * (last - first) + (time != expected))
        if time != expected:
            content += encode_packed(time)
        for item in range(first, last):
            content += encode_packed(values[item])
            content += encoded[kind.itemsize * item : kind.itemsize * (item + 1)]
        expected = time + 1
    return bytes(content)
