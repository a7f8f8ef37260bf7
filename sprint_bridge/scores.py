"""Scores that a client sends: a header that is held against the limits before any data is read, then the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray

from seqtrain.aligner.v1 import aligner_pb2
from seqtrain.aligner.v1.score_streams import Data
from seqtrain.aligner.v1.scores import CHUNK_BYTES, SCORE_DTYPES, chunks, split_frames
from sprint_bridge.config import Limits
from sprint_bridge.refused import RefusedError
from sprint_bridge.shared_memory import SharedRange, SharedRegions

__all__ = ["ReceivedScores", "receive_scores", "signal_chunks"]

ScoreMessage = aligner_pb2.AlignRequest | aligner_pb2.ComputeLossesRequest | Data


@dataclass(frozen=True)
class ReceivedScores:
    """Scores (T, V) float32 of each segment, and what the header said of them.

    `result` is where in shared memory the signals go, as many bytes as the scores take, or None.
    """

    request_id: int
    segments: tuple[str, ...]
    scores: tuple[NDArray[np.float32], ...]
    dtype: np.dtype[np.generic]
    result: SharedRange | None


def _invalid(message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, message)


def _checked_bytes(header: aligner_pb2.ScoresHeader, limits: Limits, num_labels: int, etag: str) -> int:
    """The bytes of the scores that a header announces."""
    if not 1 <= len(header.segments) <= limits.max_batch:
        raise _invalid(f"a batch of {len(header.segments)}; a batch has 1 to {limits.max_batch} items")
    for index, name in enumerate(header.segments):
        length = len(name.encode("utf-8"))
        if not 1 <= length <= limits.max_name_length:
            raise _invalid(
                f"item {index}: a name of {length} bytes; a name has 1 to {limits.max_name_length}"
            )
    if header.inventory_etag != etag:
        raise RefusedError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"the scores are of the labels {header.inventory_etag[:12] or 'of no inventory'}, this server's are "
            f"{etag[:12]}",
        )
    if len(header.num_frames) != len(header.segments) or any(frames < 0 for frames in header.num_frames):
        raise _invalid(f"num_frames must be a count for each of {len(header.segments)} segments")
    if header.num_labels != num_labels:
        raise _invalid(f"scores of {header.num_labels} labels; the inventory has {num_labels}")
    if header.dtype not in SCORE_DTYPES:
        raise _invalid("scores must be float32 or float16")
    size = sum(header.num_frames) * num_labels * SCORE_DTYPES[header.dtype].itemsize
    if size > limits.max_score_bytes:
        raise RefusedError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"scores of {size} bytes; a call may bring {limits.max_score_bytes} (max_score_bytes)",
        )
    return size


def _data(messages: Iterator[ScoreMessage], size: int) -> NDArray[np.uint8]:
    # numpy's memory comes in huge pages, where there are any: touching 72 MB for the first time takes longer than
    # copying them.
    data = np.empty(size, dtype=np.uint8)
    view = data.data
    filled = 0
    for message in messages:
        if message.WhichOneof("part") != "data":
            raise _invalid("after the header come data alone")
        chunk = message.data
        if len(chunk) > CHUNK_BYTES:
            raise _invalid(f"a chunk of {len(chunk)} bytes; a chunk has at most {CHUNK_BYTES}")
        if filled + len(chunk) > size:
            raise _invalid(f"more data than the {size} bytes that the header announces")
        view[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
        if filled == size:
            # The client closes its side now; what it might still send is nobody's business.
            break
    if filled < size:
        raise _invalid(f"data end after {filled} of the {size} bytes that the header announces")
    return data


def receive_scores(
    messages: Iterator[ScoreMessage], *, limits: Limits, num_labels: int, etag: str, regions: SharedRegions
) -> ReceivedScores:
    """Reads one call's scores.

    Raises:
        RefusedError: with the status that the protocol says.
    """
    first = next(messages, None)
    if first is None or isinstance(first, Data) or first.WhichOneof("part") != "header":
        raise _invalid("the first message must be the header")
    header = first.header
    size = _checked_bytes(header, limits, num_labels, etag)
    if header.HasField("shared"):
        shared = regions.range(header.shared, size=size)
        try:
            data = shared.read()
        finally:
            shared.close()
    else:
        data = _data(messages, size) if size else np.empty(0, dtype=np.uint8)
    result = regions.range(header.result, size=size) if header.HasField("result") else None
    dtype = SCORE_DTYPES[header.dtype]
    rows = split_frames(data, dtype, list(header.num_frames), num_labels)
    scores = tuple(row.astype(np.float32, copy=False) for row in rows)
    return ReceivedScores(header.request_id, tuple(header.segments), scores, dtype, result)


def signal_chunks(signals: Sequence[NDArray[np.float32]], received: ReceivedScores) -> Iterator[Data]:
    """The signals in messages; none where they went into shared memory."""
    arrays = [np.ascontiguousarray(signal, dtype=received.dtype) for signal in signals]
    if received.result is None:
        yield from chunks(arrays)
        return
    begin = 0
    try:
        for array in arrays:
            view = array.reshape(-1).view(np.uint8).data
            received.result.write(begin, view)
            begin += len(view)
    finally:
        received.result.close()
