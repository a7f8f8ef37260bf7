"""The layout of scores on the wire, the same for both sides: chunks, sizes, dtypes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.aligner.v1 import aligner_pb2
from seqtrain.aligner.v1.score_streams import Data

__all__ = ["CHUNK_BYTES", "SCORE_DTYPES", "chunks", "split_frames"]

CHUNK_BYTES = 1 << 20
"""The most data in one message."""

SCORE_DTYPES: dict[aligner_pb2.DType, np.dtype[Any]] = {
    aligner_pb2.D_TYPE_FLOAT32: np.dtype("<f4"),
    aligner_pb2.D_TYPE_FLOAT16: np.dtype("<f2"),
}
"""What scores and signals may be sent as."""


def chunks(arrays: Sequence[NDArray[Any]]) -> Iterator[Data]:
    """The bytes of C-contiguous arrays, one after the other, in chunks of at most `CHUNK_BYTES`: views of them."""
    for array in arrays:
        view = array.reshape(-1).view(np.uint8).data
        for begin in range(0, len(view), CHUNK_BYTES):
            yield Data(view[begin : begin + CHUNK_BYTES])


def split_frames(
    data: Any, dtype: np.dtype[Any], num_frames: Sequence[int], num_labels: int
) -> list[NDArray[Any]]:
    """Views (T, V) of each segment into a buffer of exactly their size."""
    rows = np.frombuffer(data, dtype=dtype).reshape(-1, num_labels)
    ends = np.cumsum(num_frames, dtype=np.int64)
    return [rows[end - frames : end] for end, frames in zip(ends.tolist(), num_frames, strict=True)]
