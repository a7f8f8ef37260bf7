"""Writing PNG: 8-bit RGBA, no filter (ISO/IEC 15948)."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import ShapeError

__all__ = ["encode_png", "png_data_uri"]


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """The PNG file of `pixels` (H, W, 4): red, green, blue, opacity; the first row is the top.

    Raises:
        ShapeError: the shape isn't (H, W, 4) with at least one pixel.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 4 or pixels.size == 0:
        raise ShapeError(f"pixels must be (H, W, 4) and not empty, got {pixels.shape}", argument="pixels")
    height, width, _ = pixels.shape
    # Each row begins with the number of its filter: 0, none.
    rows = np.zeros((height, 1 + 4 * width), dtype=np.uint8)
    rows[:, 1:] = pixels.reshape(height, 4 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_data_uri(pixels: NDArray[np.uint8]) -> str:
    """`encode_png` as a `data:` URI."""
    return "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode("ascii")
