from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import pytest

from seqtrain.errors import ShapeError
from seqtrain.training.report.colors import heat, spectrogram
from seqtrain.training.report.png import encode_png, png_data_uri


def decode(data: bytes) -> np.ndarray:
    """Reads what `encode_png` writes, checking each chunk."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, position = [], 8
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        kind, content = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack(">I", data[position + 8 + length : position + 12 + length])
        assert checksum == zlib.crc32(kind + content)
        chunks.append((kind, content))
        position += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, color, compression, filtering, interlace = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, color, compression, filtering, interlace) == (8, 6, 0, 0, 0)
    rows = np.frombuffer(zlib.decompress(chunks[1][1]), dtype=np.uint8).reshape(height, 1 + 4 * width)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 4)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 200)])
def test_pixels_come_back(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 4), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encode_png(pixels)), pixels)
    head, _, content = png_data_uri(pixels).partition(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(decode(base64.b64decode(content)), pixels)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"must be \(H, W, 4\) and not empty, got \(2, 2, 3\)"):
        encode_png(np.zeros((2, 2, 3), dtype=np.uint8))
    with pytest.raises(ShapeError, match="not empty"):
        encode_png(np.zeros((0, 2, 4), dtype=np.uint8))


def test_spectrogram_has_low_frequencies_at_the_bottom_and_louder_is_lighter() -> None:
    log_mel = np.tile(np.linspace(-5.0, 5.0, 8), (30, 1))
    pixels = spectrogram(log_mel)
    assert pixels.shape == (8, 30, 4)
    assert (pixels[..., 3] == 255).all()
    lightness = pixels[:, 0, :3].astype(float) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) < 0).all()  # louder channels are higher here, and rows run downwards
    assert spectrogram(np.zeros((3, 2))).shape == (2, 3, 4)


def test_heat_is_transparent_where_nothing_is() -> None:
    pixels = heat(np.array([[0.0, 0.25, 1.0]]), (1, 2, 3))
    assert pixels[0, :, 3].tolist() == [0, 128, 255]
    assert (pixels[..., :3] == [1, 2, 3]).all()
