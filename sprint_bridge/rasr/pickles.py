"""The pickles of RETURNN's Sprint protocol, read without running anything, and written plainly.

A pickle is a program for a stack machine, which may call any function it names. Here is a machine of our own that
knows the instructions that the protocol's messages are made of, and of functions only those that stand for arrays,
their dtypes and scalars. Not even these are called: the machine makes arrays of the bytes itself. What it makes can't
be larger than a few times the message, whatever that says.

Arrays are known in the spellings of numpy 1 and 2, and in RETURNN's own. They are written as `numpy.ndarray(shape,
dtype, bytes)`, which any numpy takes.
"""

from __future__ import annotations

import io
import math
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import SeqtrainError

__all__ = ["PickleRefusedError", "Value", "decode_message", "encode_message"]

Value: TypeAlias = "bool | int | float | str | bytes | NDArray[Any] | None"

_MOST_PROTOCOL = 5
_MOST_DIMENSIONS = 8
# An array has its own bytes in the message; only one that is out to fill memory makes many of the same.
_MOST_COPIES = 3
_DTYPES = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
}
_CODES = {f"{dtype.kind}{dtype.itemsize}": dtype for dtype in _DTYPES.values()}
_BYTE_ORDERS = ("<", "|", "=")

_NDARRAY = ("numpy ndarray",)
_DTYPE = ("numpy dtype",)
_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_SCALAR = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")
_FROM_BUFFER = ("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer")
_FROM_STRING = ("returnn.util.task_system make_numpy_ndarray_fromstring",)
_ENCODE = ("_codecs encode",)
_BYTES = ("builtins bytes", "__builtin__ bytes", "builtins bytearray", "__builtin__ bytearray")
_GLOBALS = frozenset(
    (*_NDARRAY, *_DTYPE, *_RECONSTRUCT, *_SCALAR, *_FROM_BUFFER, *_FROM_STRING, *_ENCODE, *_BYTES)
)


class PickleRefusedError(SeqtrainError):
    """A pickle is broken, or holds what the protocol's messages don't; nothing of it was run."""


@dataclass(frozen=True)
class _Global:
    """The name of a function, which stands for itself only."""

    name: str


@dataclass(frozen=True)
class _DType:
    dtype: np.dtype[Any]


class _Unbuilt:
    """An array whose content an instruction further down brings."""

    def __init__(self) -> None:
        self.array: NDArray[Any] | None = None


_MARK = object()


def decode_message(content: bytes) -> tuple[Value, ...]:
    """The tuple that a pickle holds.

    Raises:
        PickleRefusedError: it isn't a pickle, or none of a tuple of None, booleans, integers, floats, strings, bytes
            and arrays of numbers.
    """
    machine = _Machine(_MOST_COPIES * len(content))
    try:
        for name, argument in _instructions(content):
            machine.execute(name, argument)
    except (ValueError, OverflowError, UnicodeError) as error:
        raise PickleRefusedError(f"isn't a pickle: {error}") from error
    return machine.result()


def _instructions(content: bytes) -> Iterator[tuple[str, Any]]:
    """Names and arguments up to STOP; one that isn't known is refused before its argument is read."""
    stream = io.BytesIO(content)
    while True:
        code = _take(stream, 1)
        if code == _STOP:
            break
        if code not in _CODES_OF_INSTRUCTIONS:
            raise PickleRefusedError(f"isn't a pickle of a message: it has the instruction {code!r}")
        name, form = _CODES_OF_INSTRUCTIONS[code]
        yield name, _argument(stream, form)
    left = len(content) - stream.tell()
    if left:
        raise PickleRefusedError(f"{left} bytes follow the pickle's end")


def _argument(stream: io.BytesIO, form: str) -> Any:
    """The argument that an instruction has: a number of a `struct` format, text or bytes behind their length, …"""
    if not form:
        return None
    if form == "name":
        return " ".join(_line(stream) for _ in range(2))
    kind, form = (form[0], form[1:]) if form[0] in "tbi" else ("", form)
    number = struct.unpack(form, _take(stream, struct.calcsize(form)))[0]
    if not kind:
        return number
    content = _take(stream, number)
    if kind == "i":
        return int.from_bytes(content, "little", signed=True)
    return content.decode("utf-8", "surrogatepass") if kind == "t" else content


def _take(stream: io.BytesIO, count: int) -> bytes:
    # Reading past the end takes no memory; but what is asked for has to fit into a size of this machine.
    content = stream.read(min(count, sys.maxsize))
    if len(content) != count:
        raise PickleRefusedError(f"is cut off: {count} bytes were to follow, {len(content)} do")
    return content


def _line(stream: io.BytesIO) -> str:
    line = stream.readline(_LONGEST_NAME)
    if not line.endswith(b"\n"):
        raise PickleRefusedError("names a function without an end")
    return line[:-1].decode("utf-8")


class _Machine:
    """The stack, and what was put aside; makes arrays of no more than `budget` bytes in all."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def execute(self, name: str, argument: Any) -> None:
        """Executes one of the instructions that are known."""
        if name in _PUSHED:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            size = _TUPLES[name]
            parts = [self._pop() for _ in range(size)]
            self._stack.append(tuple(reversed(parts)))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._top()
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top()
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in self._memo:
                raise PickleRefusedError(f"takes number {argument} from the memo, which isn't there")
            self._stack.append(self._memo[argument])
        else:
            getattr(self, _METHODS[name])(argument)

    def result(self) -> tuple[Value, ...]:
        """What is left in the end."""
        message = self._pop()
        if self._stack or not isinstance(message, tuple):
            raise PickleRefusedError(f"holds {_kind(message)}, where a tuple is expected")
        return tuple(_value(item) for item in message)

    def _top(self) -> Any:
        if not self._stack:
            raise PickleRefusedError("takes from an empty stack")
        return self._stack[-1]

    def _pop(self) -> Any:
        top = self._top()
        if top is _MARK:
            raise PickleRefusedError("takes a mark for a value")
        del self._stack[-1]
        return top

    def _pop_to_mark(self) -> list[Any]:
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] is _MARK:
                items = self._stack[index + 1 :]
                del self._stack[index:]
                return items
        raise PickleRefusedError("lacks a mark")

    def _protocol(self, version: int) -> None:
        if version > _MOST_PROTOCOL:
            raise PickleRefusedError(f"is of protocol {version}, at most {_MOST_PROTOCOL} is known")

    def _nothing(self, _: Any) -> None:
        """FRAME says how much may be read at once."""

    def _tuple(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._stack.append(tuple(items))

    def _global(self, name: str) -> None:
        if name not in _GLOBALS:
            raise PickleRefusedError(f"names {name.replace(' ', '.', 1)[:200]!r}, which is not allowed")
        self._stack.append(_Global(name))

    def _stack_global(self, _: Any) -> None:
        function, module = self._pop(), self._pop()
        if not isinstance(module, str) or not isinstance(function, str):
            raise PickleRefusedError("names a function by what isn't a string")
        self._global(f"{module} {function}")

    def _reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise PickleRefusedError(f"calls {_kind(function)}")
        self._stack.append(self._call(function.name, arguments))

    def _build(self, _: Any) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, _DType):
            _check_dtype_state(state)
        elif isinstance(target, _Unbuilt) and target.array is None:
            target.array = self._array_of_state(state)
        else:
            raise PickleRefusedError(f"gives {_kind(target)} a state")

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """What the function makes of the arguments, by our own hand."""
        if name in _DTYPE:
            if not arguments or not isinstance(arguments[0], str) or arguments[0] not in _CODES:
                raise PickleRefusedError(f"makes a dtype of {_kind(arguments)}")
            return _DType(_CODES[arguments[0]])
        if name in _RECONSTRUCT:
            if len(arguments) != 3 or arguments[0] != _Global(*_NDARRAY):
                raise PickleRefusedError("reconstructs what isn't an array")
            return _Unbuilt()
        if name in _SCALAR:
            if len(arguments) != 2 or not isinstance(arguments[0], _DType):
                raise PickleRefusedError("makes a scalar without a dtype")
            return self._array(arguments[1], arguments[0].dtype, ()).item()
        if name in _FROM_BUFFER:
            if len(arguments) != 4 or not isinstance(arguments[1], _DType):
                raise PickleRefusedError("makes an array without a dtype")
            return self._array(arguments[0], arguments[1].dtype, arguments[2], arguments[3])
        if name in (*_FROM_STRING, *_NDARRAY):
            if len(arguments) != 3:
                raise PickleRefusedError(f"makes an array of {len(arguments)} arguments")
            first, dtype, last = arguments
            content, shape = (first, last) if name in _FROM_STRING else (last, first)
            known = {**_DTYPES, **{f"<{code}": value for code, value in _CODES.items()}}
            if not isinstance(dtype, str) or dtype not in known:
                raise PickleRefusedError(f"makes an array of {_kind(dtype)}")
            return self._array(content, known[dtype], shape)
        if name in _ENCODE:
            if len(arguments) != 2 or not all(isinstance(argument, str) for argument in arguments):
                raise PickleRefusedError("encodes what isn't a string")
            text, encoding = arguments
            if encoding not in ("latin1", "latin-1"):
                raise PickleRefusedError(f"encodes as {encoding[:40]!r}")
            return self._counted(text.encode("latin-1"))
        if name in _BYTES:
            if len(arguments) > 1 or not isinstance(arguments[0] if arguments else b"", bytes):
                raise PickleRefusedError("makes bytes of what isn't bytes")
            return arguments[0] if arguments else b""
        raise PickleRefusedError(f"calls {name!r}")

    def _array_of_state(self, state: Any) -> NDArray[Any]:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _DType):
            raise PickleRefusedError("has an array with an unknown state")
        _, shape, dtype, fortran, content = state
        return self._array(content, dtype.dtype, shape, "F" if fortran is True else "C")

    def _array(self, content: Any, dtype: np.dtype[Any], shape: Any, order: Any = "C") -> NDArray[Any]:
        sizes_known = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
        if not isinstance(content, bytes) or not sizes_known:
            raise PickleRefusedError("has an array whose content isn't bytes, or whose shape no integers")
        if not isinstance(order, str) or order not in ("C", "F"):
            raise PickleRefusedError(f"has an array in the order {order!r:.40}")
        if len(shape) > _MOST_DIMENSIONS:
            raise PickleRefusedError(
                f"has an array of {len(shape)} dimensions, at most {_MOST_DIMENSIONS} are taken"
            )
        if len(content) != math.prod(shape) * dtype.itemsize:
            raise PickleRefusedError(f"has an array of {dtype}, shape {shape!r:.80}, of {len(content)} bytes")
        self._counted(content)
        # A copy, which is aligned and its own.
        flat: NDArray[Any] = np.frombuffer(content, dtype=dtype.newbyteorder("<")).astype(dtype)
        shaped: NDArray[Any] = flat.reshape(shape, order="F" if order == "F" else "C")
        return shaped

    def _counted(self, content: bytes) -> bytes:
        self._budget -= len(content)
        if self._budget < 0:
            raise PickleRefusedError("makes more arrays than it has bytes for")
        return content


_STOP = b"."
_LONGEST_NAME = 200
# Code of each instruction that is known: its name, and the form of its argument. Text (t), bytes (b) and integers of
# any size (i) have their length before them.
_CODES_OF_INSTRUCTIONS = {
    b"\x80": ("PROTO", "<B"),
    b"\x95": ("FRAME", "<Q"),
    b"(": ("MARK", ""),
    b"N": ("NONE", ""),
    b"\x88": ("NEWTRUE", ""),
    b"\x89": ("NEWFALSE", ""),
    b"J": ("BININT", "<i"),
    b"K": ("BININT1", "<B"),
    b"M": ("BININT2", "<H"),
    b"\x8a": ("LONG1", "i<B"),
    b"G": ("BINFLOAT", ">d"),
    b"\x8c": ("SHORT_BINUNICODE", "t<B"),
    b"X": ("BINUNICODE", "t<I"),
    b"\x8d": ("BINUNICODE8", "t<Q"),
    b"C": ("SHORT_BINBYTES", "b<B"),
    b"B": ("BINBYTES", "b<I"),
    b"\x8e": ("BINBYTES8", "b<Q"),
    b"\x96": ("BYTEARRAY8", "b<Q"),
    b")": ("EMPTY_TUPLE", ""),
    b"\x85": ("TUPLE1", ""),
    b"\x86": ("TUPLE2", ""),
    b"\x87": ("TUPLE3", ""),
    b"t": ("TUPLE", ""),
    b"q": ("BINPUT", "<B"),
    b"r": ("LONG_BINPUT", "<I"),
    b"\x94": ("MEMOIZE", ""),
    b"h": ("BINGET", "<B"),
    b"j": ("LONG_BINGET", "<I"),
    b"c": ("GLOBAL", "name"),
    b"\x93": ("STACK_GLOBAL", ""),
    b"R": ("REDUCE", ""),
    b"b": ("BUILD", ""),
}
# Of these the argument is the value.
_PUSHED = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_CONSTANTS: dict[str, Any] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
    "MARK": _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_METHODS = {
    "PROTO": "_protocol",
    "FRAME": "_nothing",
    "TUPLE": "_tuple",
    "GLOBAL": "_global",
    "STACK_GLOBAL": "_stack_global",
    "REDUCE": "_reduce",
    "BUILD": "_build",
}


def _check_dtype_state(state: Any) -> None:
    """The state of a plain dtype: version, byte order, and nothing where structured ones have parts."""
    plain = (
        isinstance(state, tuple)
        and len(state) >= 5
        and isinstance(state[1], str)
        and state[1] in _BYTE_ORDERS
        and all(part is None for part in state[2:5])
    )
    if not plain:
        raise PickleRefusedError("has a dtype with parts, or of another byte order")


def _value(item: Any) -> Value:
    if isinstance(item, _Unbuilt) and item.array is not None:
        return item.array
    if item is None or isinstance(item, bool | int | float | str | bytes | np.ndarray):
        return item
    raise PickleRefusedError(f"holds a tuple with {_kind(item)} in it")


def _kind(value: Any) -> str:
    return value.name if isinstance(value, _Global) else type(value).__name__.strip("_")


def encode_message(message: Sequence[Value]) -> bytes:
    """A pickle of a tuple, of protocol 3 and without anything that an unpickler of any age or numpy lacks.

    Raises:
        TypeError: it can't be written so.
    """
    return b"\x80\x03(" + b"".join(map(_encoded, message)) + b"t."


def _encoded(value: Value) -> bytes:
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        if not -(1 << 31) <= value < 1 << 31:
            raise TypeError(f"{value} has more than 32 bits")
        return b"J" + struct.pack("<i", value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return _sized(b"X", value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes):
        return _sized(b"B", value)
    if isinstance(value, np.ndarray) and value.dtype.name in _DTYPES:
        dtype = value.dtype.newbyteorder("<")
        arguments = (
            b"(" + b"".join(_encoded(int(size)) for size in value.shape) + b"t",
            _encoded(f"<{dtype.kind}{dtype.itemsize}"),
            _encoded(value.astype(dtype).tobytes()),
        )
        return b"cnumpy\nndarray\n(" + b"".join(arguments) + b"tR"
    raise TypeError(f"{value!r:.80} has no place in a message")


def _sized(instruction: bytes, content: bytes) -> bytes:
    if len(content) >= 1 << 31:
        raise TypeError(f"{len(content)} bytes are too many for a message")
    return instruction + struct.pack("<I", len(content)) + content
