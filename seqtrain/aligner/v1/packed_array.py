"""Arrays on the wire: dtype, shape, raw bytes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.aligner.v1 import aligner_pb2

__all__ = ["PackedArrayError", "pack", "pack_raw", "unpack"]

_DTYPES: dict[aligner_pb2.DType, np.dtype[Any]] = {
    aligner_pb2.D_TYPE_INT32: np.dtype("<i4"),
    aligner_pb2.D_TYPE_INT64: np.dtype("<i8"),
    aligner_pb2.D_TYPE_FLOAT32: np.dtype("<f4"),
    aligner_pb2.D_TYPE_FLOAT64: np.dtype("<f8"),
    aligner_pb2.D_TYPE_FLOAT16: np.dtype("<f2"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


class PackedArrayError(ValueError):
    """A packed array doesn't hold what it says, or not what is expected; whoever unpacks says where it came
    from.
    """


def pack(array: NDArray[Any]) -> aligner_pb2.PackedArray:
    """Packs an int32, int64, float16, float32 or float64 array of any strides and byte order."""
    array = np.asarray(array)
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _CODES:
        raise PackedArrayError(f"arrays of {array.dtype} can't be packed")
    return aligner_pb2.PackedArray(
        dtype=_CODES[dtype], shape=array.shape, raw=np.ascontiguousarray(array, dtype=dtype).tobytes()
    )


def pack_raw(dtype: aligner_pb2.DType, shape: tuple[int, ...], raw: bytes) -> aligner_pb2.PackedArray:
    """Packs bytes that are little endian and in C order already, and fit the shape."""
    return aligner_pb2.PackedArray(dtype=dtype, shape=shape, raw=raw)


def unpack(
    packed: aligner_pb2.PackedArray, *, name: str, dtypes: tuple[str, ...], shape: tuple[int | None, ...]
) -> NDArray[Any]:
    """The array of a message: a writable copy in native byte order.

    Args:
        packed: the message.
        name: of the field, for errors.
        dtypes: names of the dtypes that may come, such as `("float32", "float64")`.
        shape: the shape that must come; None stands for any size.

    Raises:
        PackedArrayError: another dtype or shape, or bytes that don't fit the shape.
    """
    dtype = _DTYPES.get(packed.dtype)
    if dtype is None or dtype.name not in dtypes:
        found = dtype.name if dtype is not None else f"dtype code {int(packed.dtype)}"
        raise PackedArrayError(f"{name}: expected {' or '.join(dtypes)}, found {found}")
    found_shape = tuple(packed.shape)
    if len(found_shape) != len(shape) or any(
        size < 0 or size != (size if wanted is None else wanted)
        for size, wanted in zip(found_shape, shape, strict=True)
    ):
        wanted_shape = ", ".join("*" if size is None else str(size) for size in shape)
        raise PackedArrayError(f"{name}: expected shape ({wanted_shape}), found {found_shape}")
    # Python's integers don't overflow, whatever shape an answer claims to have.
    if len(packed.raw) != math.prod(found_shape) * dtype.itemsize:
        raise PackedArrayError(
            f"{name}: {len(packed.raw)} bytes for shape {found_shape} of {dtype.itemsize} bytes each"
        )
    return (
        np.frombuffer(packed.raw, dtype=dtype).reshape(found_shape).astype(dtype.newbyteorder("="), copy=True)
    )
