"""Fuzz of what comes from workers' processes: each mutated frame or pickle is either refused by its error, or is one.

    python -m tests.fuzz.frames --seconds 60 [--seed N]

While a pickle is read nothing may be imported, looked up or run, and what comes out may not be much larger than it.
"""

from __future__ import annotations

import argparse
import io
import pickle
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from sprint_bridge.rasr.pickles import PickleRefusedError, decode_message, encode_message
from sprint_bridge.workers.frames import Frame, FrameLimits, MalformedFrameError, encode_frame, read_frame
from tests.fuzz.turns import turns_for

LIMITS = FrameLimits(header_bytes=1 << 12, payload_bytes=1 << 14, arrays=8, dimensions=4)
FORBIDDEN = {
    "pickle.find_class",
    "import",
    "exec",
    "compile",
    "open",
    "os.system",
    "os.exec",
    "subprocess.Popen",
}
MOST_COPIES = 3
# Lengths and dimensions that are out for trouble, as the formats write them.
NUMBERS = [
    *(struct.pack(form, value) for form in ("<B", "<H", "<I", "<Q") for value in (0, 1, 255)),
    *(struct.pack("<I", value) for value in (1 << 16, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)),
    *(struct.pack("<Q", value) for value in (1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)),
    *(
        text.encode()
        for text in ("-1", "4294967296", "9" * 30, "1e3", "NaN", "true", "null", "[[[[", '"object"', "{}")
    ),
]
INSTRUCTIONS = [
    *(
        b"(",
        b"t",
        b"\x85",
        b"\x86",
        b"\x87",
        b")",
        b"R",
        b"b",
        b"N",
        b"\x88",
        b".",
        b"0",
        b"2",
        b"\x94",
        b"h\x00",
        b"q\x00",
    ),
    *(
        b"r\xff\xff\xff\xff",
        b"j\xff\xff\xff\xff",
        b"\x81",
        b"\x92",
        b"\x93",
        b"\x95" + bytes(8),
        b"}",
        b"]",
        b"e",
        b"u",
    ),
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy\nload\n"),
    *(b"ios\nsystem\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\nscalar\n"),
    *(
        b"c_codecs\nencode\n",
        b"creturnn.util.task_system\nmake_numpy_ndarray_fromstring\n",
        b"Vid\n",
        b"\x82\x01",
    ),
    *(
        b"B\xff\xff\xff\x7f",
        b"\x8e" + b"\xff" * 8,
        b"\x8b\xff\xff\xff\x7f",
        b"X\x04\x00\x00\x00",
        b"K\x05",
        b"P1\n",
        b"Q",
    ),
]

reading = False


def forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: the reader of pickles gets nowhere."""
    if reading and event in FORBIDDEN:
        raise RuntimeError(f"{event} {arguments!r:.200} while a pickle was read")


sys.addaudithook(forbid)


def messages() -> list[tuple[Any, ...]]:
    """Messages of RETURNN's protocol, and a few more."""
    edges = np.arange(21, dtype=np.uint32)
    weights = np.linspace(0, 1, 7, dtype=np.float32)
    return [
        ("init", "SprintSubprocessInstance", 1),
        ("ok", 5, 7, edges, weights),
        ("ok", np.float32(1.5), np.asfortranarray(np.ones((3, 2), dtype=np.float32))),
        ("exception", "unknown segment 'ä'"),
        ("get_loss_and_error_signal", "a/b", np.int32(3), np.zeros((3, 4)), b"bytes", None, True, 2.5),
    ]


def pickles() -> list[bytes]:
    """Valid pickles, by each writer, in both spellings of numpy."""
    found = []
    for message in messages():
        plain = [value.item() if isinstance(value, np.generic) else value for value in message]
        found.append(encode_message(plain))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            found.append(pickle.dumps(message, protocol))
            stream = io.BytesIO()
            pickle._Pickler(stream, protocol).dump(message)  # type: ignore[attr-defined]
            found.append(stream.getvalue())
    return found + [content.replace(b"cnumpy._core", b"cnumpy.core") for content in found]


def frames() -> list[bytes]:
    """Valid frames."""
    return [
        encoded(Frame({}, {})),
        encoded(Frame({"operation": "automaton", "segment": "a/b", "id": 3}, {})),
        encoded(Frame({"num_states": 5}, {"arcs": np.zeros((7, 3), dtype=np.int32), "weights": np.ones(7)})),
        encoded(
            Frame(
                {"error": {"kind": "failed", "message": "ä\udc80"}},
                {"empty": np.zeros((0, 3), dtype=np.uint8)},
            )
        ),
        encoded(
            Frame(
                {"deep": [[[{"a": [1.5, None, True]}]]]},
                {"loss": np.array(1.0), "half": np.ones(3, dtype=np.float16)},
            )
        ),
    ]


def encoded(frame: Frame) -> bytes:
    header, parts = encode_frame(frame.message, frame.arrays)
    return header + b"".join(part.tobytes() for part in parts)


def mutated(content: bytes, others: list[bytes], pieces: list[bytes], source: random.Random) -> bytes:
    """The bytes after a few random changes."""
    for _ in range(source.choice((1, 1, 1, 2, 3, 8))):
        at = source.randrange(len(content) + 1)
        kind = source.randrange(7)
        if kind == 0:
            content = content[:at] + content[at + source.choice((1, 1, 4, 20)) :]
        elif kind == 1:
            content = content[:at] + source.choice(pieces) + content[at:]
        elif kind == 2:
            piece = source.choice(pieces)
            content = content[:at] + piece + content[at + len(piece) :]
        elif kind == 3:
            content = content[:at] + source.randbytes(source.choice((1, 1, 2, 8))) + content[at + 1 :]
        elif kind == 4:
            other = source.choice(others)
            content = content[:at] + other[source.randrange(len(other) + 1) :]
        elif kind == 5:
            end = source.randrange(at, len(content) + 1)
            content = content[:end] + content[at:end] * source.choice((1, 2, 30)) + content[end:]
        elif content:
            place = source.randrange(len(content))
            content = (
                content[:place] + bytes([content[place] ^ (1 << source.randrange(8))]) + content[place + 1 :]
            )
    return content[: 1 << 16]


def decoded(content: bytes) -> Frame:
    """The frame that the bytes begin with."""
    rest = io.BytesIO(content)

    def fill(buffer: memoryview) -> None:
        if rest.readinto(buffer) != len(buffer):
            raise MalformedFrameError("is cut off")

    return read_frame(fill, LIMITS)


def check_frame(content: bytes) -> None:
    """Reads a frame, writes it, and reads it again.

    Raises:
        MalformedFrameError: it is none. AssertionError: it is too large, or comes back as another.
    """
    frame = decoded(content)
    if sum(array.nbytes for array in frame.arrays.values()) > LIMITS.payload_bytes:
        raise AssertionError("more than the limits allow")
    again = decoded(encoded(frame))
    if again.message != frame.message or list(again.arrays) != list(frame.arrays):
        raise AssertionError(f"{frame.message} came back as {again.message}")
    for name, array in frame.arrays.items():
        other = again.arrays[name]
        if (other.dtype, other.shape, other.tobytes()) != (array.dtype, array.shape, array.tobytes()):
            raise AssertionError(f"array {name!r} came back as another")


def check_pickle(content: bytes) -> None:
    """Reads a pickle.

    Raises:
        PickleRefusedError: it is refused. AssertionError: what came out is no message, or is too large.
    """
    global reading
    reading = True
    try:
        message = decode_message(content)
    finally:
        reading = False
    size = 0
    for value in message:
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "biuf":
                raise AssertionError(f"an array of {value.dtype}")
            size += value.nbytes
        elif value is not None and type(value) not in (bool, int, float, str, bytes):
            raise AssertionError(f"a {type(value)}")
    if size > MOST_COPIES * len(content):
        raise AssertionError(f"{size} bytes out of {len(content)}")


Check = Callable[[bytes], None]


def targets() -> list[tuple[str, list[bytes], list[bytes], Check, type[Exception]]]:
    """Each reader: valid inputs, pieces to put in, the check, and the error that refuses."""
    return [
        ("frame", frames(), NUMBERS, check_frame, MalformedFrameError),
        ("pickle", pickles(), INSTRUCTIONS + NUMBERS, check_pickle, PickleRefusedError),
    ]


def fuzz(turns: Iterable[object], seed: int) -> Counter[str]:
    """Run for so many turns; how often each reader took and refused an input.

    Raises:
        RuntimeError: something else came out; holds the input.
    """
    source = random.Random(seed)
    readers = targets()
    for name, valid, _, check, _ in readers:
        for content in valid:
            try:
                check(content)
            except Exception as error:
                raise RuntimeError(f"{name}: {error!r} from the valid {content!r}") from error
    sizes = [len(valid) for _, valid, *_ in readers]
    outcomes: Counter[str] = Counter()
    for _ in turns:
        for (name, inputs, pieces, check, refusal), size in zip(readers, sizes, strict=True):
            content = mutated(source.choice(inputs), inputs, pieces, source)
            try:
                check(content)
            except refusal:
                outcomes[f"{name}: refused"] += 1
                continue
            except Exception as error:  # the very thing this program looks for
                raise RuntimeError(f"{name} (seed {seed}): {error!r} from {content!r}") from error
            outcomes[f"{name}: accepted"] += 1
            if len(content) < 2000:  # inputs that got through are good places to go on from
                if len(inputs) < size + 100:
                    inputs.append(content)
                else:
                    inputs[source.randrange(size, len(inputs))] = content
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    outcomes = fuzz(turns_for(arguments.seconds), arguments.seed)
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:9d}  {outcome}")
    print(f"{outcomes.total():9d}  inputs read, nothing found")


if __name__ == "__main__":
    main()
