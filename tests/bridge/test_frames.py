"""Frames: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import ast
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays

from sprint_bridge.workers.frames import (
    ByteChannel,
    ChannelClosedError,
    ChannelTimeoutError,
    Frame,
    FrameChannel,
    FrameLimits,
    MalformedFrameError,
    encode_frame,
    read_frame,
)
from tests.bridge.toy_pool import within
from tests.fsa.strategies import quick

ROOT = Path(__file__).parents[2]
LIMITS = FrameLimits(header_bytes=1000, payload_bytes=4000, arrays=3, dimensions=2)
JSON = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=8,
)
ARRAYS = some.sampled_from(["uint8", "int32", "uint32", "int64", "float16", "float32", "float64"]).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4))
)


def encoded(message: dict[str, Any], content: dict[str, Any] | None = None) -> bytes:
    header, parts = encode_frame(message, content)
    return header + b"".join(part.tobytes() for part in parts)


def decoded(content: bytes, limits: FrameLimits | None = None) -> Frame:
    """Reads a frame of bytes that must be used up."""
    rest = memoryview(content)

    def fill(buffer: memoryview) -> None:
        nonlocal rest
        if len(buffer) > len(rest):
            raise EOFError
        buffer[:] = rest[: len(buffer)]
        rest = rest[len(buffer) :]

    frame = read_frame(fill, limits)
    assert not rest
    return frame


@quick
@given(
    some.dictionaries(some.text(), JSON, max_size=4),
    some.dictionaries(some.text(max_size=5), ARRAYS, max_size=3),
)
def test_what_goes_in_comes_out(message: dict[str, Any], content: dict[str, Any]) -> None:
    frame = decoded(encoded(message, content))
    assert frame.message == message
    assert list(frame.arrays) == list(content)
    for name, array in content.items():
        assert frame.arrays[name].dtype == array.dtype
        assert frame.arrays[name].shape == array.shape
        assert frame.arrays[name].tobytes() == array.tobytes()
        assert frame.arrays[name].flags.writeable
        assert frame.arrays[name].flags.aligned


def test_other_orders_and_surrogates() -> None:
    matrix = np.arange(6, dtype=">f4").reshape(2, 3).T
    frame = decoded(encoded({"name": "a\udc80\n"}, {"matrix": matrix}))
    assert frame.message == {"name": "a\udc80\n"}
    np.testing.assert_array_equal(frame.arrays["matrix"], matrix)
    for array in (np.zeros(2, dtype=complex), np.array(["a"]), np.array([{}], dtype=object)):
        with pytest.raises(MalformedFrameError, match=r"frames carry uint8, int32, .*, float64"):
            encode_frame({}, {"a": array})
    with pytest.raises(ValueError, match="Out of range float"):
        encode_frame({"loss": float("inf")})


def raw(
    content: object, body: bytes = b"", *, magic: bytes = b"sqtw", version: int = 1, **lengths: int
) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    prefix = struct.pack(
        "<4sHIQ", magic, version, lengths.get("header", len(text)), lengths.get("payload", len(body))
    )
    return prefix + text + body


EMPTY: dict[str, Any] = {"message": {}, "arrays": []}


def listing(*entries: object) -> dict[str, Any]:
    return {"message": {}, "arrays": list(entries)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Segmentation fault (core dumped)", r"begins with b'Segm', no frame does"),
        (raw(EMPTY, magic=b"sqtx"), r"begins with b'sqtx'"),
        (raw(EMPTY, version=2), "is of version 2, this side knows 1"),
        (raw(EMPTY, header=1001), "has a header of 1001 bytes, at most 1000 are taken"),
        (raw(EMPTY, payload=1 << 60), f"has a payload of {1 << 60} bytes, at most 4000 are taken"),
        (raw(EMPTY, b"1234"), "has a payload of 4 bytes, its arrays need 0"),
        (raw(b"\xff"), "has a header that isn't JSON"),
        (raw(b"[" * 900), "has a header that isn't JSON|has a header other than"),
        (raw(b'{"message": {"a": NaN}, "arrays": []}'), "NaN is no JSON"),
        (raw(b'{"message": {"a": 1e400}, "arrays": []}'), "1e400 is too large a number"),
        (raw([]), "has a header other than {message, arrays}"),
        (raw({"message": {}}), "has a header other than {message, arrays}"),
        (raw({"message": [], "arrays": []}), "has a message that is no object"),
        (raw({"message": {}, "arrays": {}}), "or arrays that are no list"),
        (raw(listing(*[["a", "int32", [0]]] * 4)), "has 4 arrays, at most 3 are taken"),
        (raw(listing(["a", "int32", [0]], ["a", "int32", [0]])), "has the array 'a' twice"),
        (raw(listing(["a", "int32"])), r"has an array that isn't \[name, dtype, shape\]"),
        (raw(listing(["a", 3, []])), r"has an array that isn't \[name, dtype, shape\]"),
        (raw(listing(["a", "object", [1]])), "has an array of 'object'; frames carry"),
        (raw(listing(["a", ">f4", [1]])), "has an array of '>f4'; frames carry"),
        (raw(listing(["a", "int32", [1, 1, 1]])), "has an array of 3 dimensions, at most 2 are taken"),
        (raw(listing(["a", "int32", [-1]])), "has an array with the dimension -1"),
        (raw(listing(["a", "int32", [True]])), "has an array with the dimension True"),
        (raw(listing(["a", "int32", [1.0]])), "has an array with the dimension 1.0"),
        (raw(listing(["a", "int32", [1 << 31, 1 << 33]])), "has an array of more than 4000 bytes"),
        (raw(listing(["a", "int32", [0, 1 << 62]])), "has an array of more than 4000 bytes"),
        (raw(listing(["a", "int32", [2]]), b"1234"), "has a payload of 4 bytes, its arrays need 8"),
    ],
)
def test_what_is_no_frame(content: bytes, message: str) -> None:
    with pytest.raises(MalformedFrameError, match=message):
        decoded(content, LIMITS)


def pair() -> tuple[FrameChannel, FrameChannel, list[ByteChannel]]:
    """Two ends of a socket."""
    ends = [end.detach() for end in socket.socketpair()]
    channels = [ByteChannel(end, end) for end in ends]
    return FrameChannel(channels[0]), FrameChannel(channels[1]), channels


def test_large_frames_over_a_socket() -> None:
    ours, theirs, channels = pair()
    content = {
        "a": np.arange(1 << 20, dtype=np.float32).reshape(1 << 10, -1),
        "b": np.zeros(0, dtype=np.int64),
    }

    def echo() -> None:
        frame = theirs.receive()
        theirs.send(frame.message, frame.arrays)

    thread = threading.Thread(target=echo)
    thread.start()
    ours.send({"n": 1}, content, deadline=time.monotonic() + 10)
    frame = within(10, lambda: ours.receive(deadline=time.monotonic() + 10))
    thread.join()
    assert frame.message == {"n": 1}
    np.testing.assert_array_equal(frame.arrays["a"], content["a"])
    for channel in channels:
        channel.close()
        channel.close()


def test_deadlines() -> None:
    ours, _, channels = pair()
    began = time.monotonic()
    with pytest.raises(ChannelTimeoutError, match="the deadline has passed"):
        ours.receive(deadline=began + 0.1)
    # The other side doesn't read, and the socket's buffer is full some time.
    with pytest.raises(ChannelTimeoutError):
        ours.send({}, {"a": np.zeros(1 << 22)}, deadline=time.monotonic() + 0.1)
    assert time.monotonic() - began < 2
    for channel in channels:
        channel.close()


def test_a_deadline_holds_for_one_who_sends_byte_by_byte() -> None:
    read_fd, write_fd = os.pipe()
    unused, closed = os.pipe()
    os.close(closed)
    channel = ByteChannel(read_fd, unused)
    stop = threading.Event()

    def drip() -> None:
        for byte in raw(EMPTY, header=100):
            if stop.wait(0.02):
                return
            os.write(write_fd, bytes([byte]))

    thread = threading.Thread(target=drip)
    thread.start()
    began = time.monotonic()
    with pytest.raises(ChannelTimeoutError):
        FrameChannel(channel).receive(deadline=began + 0.2)
    assert time.monotonic() - began < 1
    stop.set()
    thread.join()
    os.close(write_fd)
    channel.close()


@pytest.mark.parametrize("length", [0, 5, 20])
def test_the_other_side_goes_away(length: int) -> None:
    ours, _, channels = pair()
    channels[1].write(memoryview(raw(EMPTY)[:length]))
    channels[1].close()
    with pytest.raises(ChannelClosedError, match="the other side has closed the channel"):
        ours.receive()
    with pytest.raises(ChannelClosedError, match="the other side is gone"):
        ours.send({}, {"a": np.zeros(1 << 16)})
    channels[0].close()


INSIDE_SPRINT = [
    *(ROOT / "sprint_bridge" / "sprint_control").glob("*.py"),
    *(ROOT / "sprint_bridge" / "workers" / name for name in ("__init__.py", "frames.py", "loop.py")),
    ROOT / "sprint_bridge" / "__init__.py",
]


def test_what_runs_inside_sprint_is_for_old_interpreters() -> None:
    for path in INSIDE_SPRINT:
        source = path.read_text(encoding="utf-8")
        ast.parse(source, feature_version=(3, 8))
        # Gone from numpy, with what it was for.
        assert "fromstring" not in source, path


def test_what_runs_inside_sprint_needs_numpy_alone() -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import sprint_bridge.sprint_control\n"
        "found = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "found -= {*sys.stdlib_module_names, 'cython_runtime'}\n"
        "print(sorted(name for name in found if not name.startswith('_')))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    assert result.stdout.strip() == "['numpy', 'sprint_bridge']"
