"""RETURNN's pickles: what we write any unpickler reads, and what we read can do nothing."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from sprint_bridge.rasr.pickles import PickleRefusedError, decode_message, encode_message
from tests.bridge.test_frames import ARRAYS
from tests.fsa.strategies import quick

VALUES = (
    some.none()
    | some.booleans()
    | some.integers(-(2**31), 2**31 - 1)
    | some.floats()
    | some.text()
    | some.binary(max_size=20)
    | ARRAYS
)


def assert_same(found: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    assert isinstance(found, tuple)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, np.ndarray):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            np.testing.assert_array_equal(one, other)
        else:
            wanted = other.item() if isinstance(other, np.generic) else other
            assert type(one) is type(wanted)
            assert one == wanted or one != one


@quick
@given(some.lists(VALUES, max_size=4).map(tuple))
def test_what_we_write_anybody_reads(message: tuple[Any, ...]) -> None:
    content = encode_message(message)
    assert_same(pickle.loads(content), message)
    assert_same(decode_message(content), message)
    assert max(opcode.proto for opcode, *_ in pickletools.genops(content)) <= 3


def in_python(message: Any, protocol: int) -> bytes:
    stream = io.BytesIO()
    pickle._Pickler(stream, protocol).dump(message)  # type: ignore[attr-defined]
    return stream.getvalue()


@quick
@given(
    some.lists(VALUES | some.sampled_from([np.float32(1.5), np.int32(-3)]), max_size=4).map(tuple),
    some.sampled_from([2, 3, 4, 5]),
    some.sampled_from([pickle.dumps, in_python]),
)
def test_we_read_what_python_writes(message: tuple[Any, ...], protocol: int, dump: Any) -> None:
    assert_same(decode_message(dump(message, protocol)), message)


@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
def test_both_spellings_of_numpy(module: bytes) -> None:
    integers = (
        b"cnumpy\ndtype\nX\x02\x00\x00\x00i4\x89\x88\x87R"
        b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    content = b"C\x08\x01\x00\x00\x00\x02\x00\x00\x00"
    rebuilt = (
        b"c%s.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR(K\x01K\x02\x85%s\x89%stb"
        % (module, integers, content)
    )
    from_buffer = b"c%s.numeric\n_frombuffer\n(%s%sK\x02\x85X\x01\x00\x00\x00CtR" % (
        module,
        content,
        integers,
    )
    scalar = b"c%s.multiarray\nscalar\n(%sC\x04\x07\x00\x00\x00tR" % (module, integers)
    expected = np.array([1, 2], dtype=np.int32)
    message = b"\x80\x03(" + rebuilt + from_buffer + scalar + b"t."
    assert_same(decode_message(message), (expected, expected, 7))


def test_a_session_with_rasr() -> None:
    """Messages as RETURNN's module sent them from inside RASR."""
    for content, expected in (
        (
            "80059527000000000000008c04696e6974948c18537072696e7453756270726f63657373496e7374616e6365944b0187942e",
            ("init", "SprintSubprocessInstance", 1),
        ),
        (
            "8005951a000000000000008c026f6b948c0d537072696e74436f6e74726f6c944b0187942e",
            ("ok", "SprintControl", 1),
        ),
        ("80059512000000000000008c09657863657074696f6e948c009486942e", ("exception", "")),
    ):
        assert decode_message(bytes.fromhex(content)) == expected
    array = "creturnn.util.task_system\nmake_numpy_ndarray_fromstring\nC\x08\x01\x00\x00\x00\x02\x00\x00\x00"
    message = f"\x80\x05(X\x02\x00\x00\x00okK\x02{array}X\x06\x00\x00\x00uint32K\x02\x85\x87Rt."
    assert_same(decode_message(message.encode("latin-1")), ("ok", 2, np.array([1, 2], dtype=np.uint32)))


class Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is cut off: 1 bytes were to follow, 0 do"),
        (b"\x80\x05", "is cut off: 1 bytes were to follow, 0 do"),
        (b"<critical-error>", "isn't a pickle of a message: it has the instruction b'<'"),
        (pickle.dumps(["ok"]), r"it has the instruction b']'"),
        (pickle.dumps("ok"), "holds str, where a tuple is expected"),
        (pickle.dumps(("ok", (1,))), "holds a tuple with tuple in it"),
        (pickle.dumps(("ok",)) + b"x", "1 bytes follow the pickle's end"),
        (b"\x80\x06(t.", "is of protocol 6, at most 5 is known"),
        (pickle.dumps(("ok", Calls(eval, "1"))), "names 'builtins.eval', which is not allowed"),
        (
            pickle.dumps(("ok", Calls(__import__, "os")), 2),
            "names '__builtin__.__import__', which is not allowed",
        ),
        (b"\x80\x03(cnumpy\nload\nt.", "names 'numpy.load'"),
        (b"\x80\x03(c" + b"x" * 300 + b"\nload\nt.", "names a function without an end"),
        (b"\x80\x03(cnumpy\nndarray\nt.", "holds a tuple with numpy ndarray in it"),
        (b"\x80\x03(cnumpy\nndarray\nK\x01\x85R.", "makes an array of 1 arguments"),
        (b"\x80\x03(cnumpy\nndarray\n(K\x05\x85X\x03\x00\x00\x00<f8NtRt.", "content isn't bytes"),
        (
            b"\x80\x03(cnumpy\nndarray\n(J\x00\x00\x00\x40\x85X\x03\x00\x00\x00<f8C\x01xtRt.",
            r"shape \(1073741824,\), of 1",
        ),
        (
            b"\x80\x03(cnumpy\nndarray\n(K\x01\x85X\x03\x00\x00\x00|O8C\x08xxxxxxxxtRt.",
            "makes an array of str",
        ),
        (b"\x80\x03(cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85Rt.", "makes a dtype of tuple"),
        (
            b"\x80\x03(cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R(K\x03X\x01\x00\x00\x00>NNNtbt.",
            "of another byte order",
        ),
        (b"\x80\x03(cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85Rt.", "holds a tuple with DType in it"),
        (
            b"\x80\x03(cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btRt.",
            "with Unbuilt in it",
        ),
        (b"\x80\x03(cnumpy.core.multiarray\n_reconstruct\n(NNNtRt.", "reconstructs what isn't an array"),
        (b"\x80\x03(NNbt.", "gives NoneType a state"),
        (b"\x80\x03(NNRt.", "calls NoneType"),
        (b"\x80\x03(h\x05t.", "takes number 5 from the memo, which isn't there"),
        (b"\x80\x03t.", "lacks a mark"),
        (b"\x80\x03(\x85.", "takes a mark for a value"),
        (b"\x80\x04NN\x93.", "names a function by what isn't a string"),
        (b"\x80\x030.", "it has the instruction b'0'"),
        (b"\x80\x05B\xff\xff\xff\x7fx.", "is cut off: 2147483647 bytes were to follow, 2 do"),
        (b"\x80\x02(c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86Rt.", "encodes as 'zip'"),
    ],
)
def test_what_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(PickleRefusedError, match=message):
        decode_message(content)


def test_few_bytes_cannot_become_many() -> None:
    size = 100_000
    make = b"cnumpy\nndarray\n(J" + size.to_bytes(4, "little") + b"\x85X\x03\x00\x00\x00|u1h\x00tR"
    make = make.replace(b"|u1", b"<u1")
    for copies, fits in ((2, True), (100, False)):
        content = b"\x80\x03(B" + size.to_bytes(4, "little") + bytes(size) + b"q\x00" + copies * make + b"t."
        if fits:
            assert len(decode_message(content)) == 1 + copies
        else:
            with pytest.raises(PickleRefusedError, match="makes more arrays than it has bytes for"):
                decode_message(content)


@pytest.mark.parametrize("value", [1 << 31, ["a"], np.zeros(2, dtype=complex), object()])
def test_what_cannot_be_written(value: Any) -> None:
    with pytest.raises(TypeError, match=r"has (more than 32 bits|no place in a message)"):
        encode_message(("ok", value))
