"""Scores to the service and signals back: messages, in chunks or through shared memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from seqtrain.aligner.shared_region import SharedRegion, aligned
from seqtrain.aligner.v1 import aligner_pb2
from seqtrain.aligner.v1.packed_array import PackedArrayError, unpack
from seqtrain.aligner.v1.score_streams import Data
from seqtrain.aligner.v1.scores import SCORE_DTYPES, chunks
from seqtrain.errors import AlignerError, ArgumentError, DtypeError, ShapeError

__all__ = ["LossBatch", "ScoredBatch", "read_losses"]

_WIRE = {torch.float32: aligner_pb2.D_TYPE_FLOAT32, torch.float16: aligner_pb2.D_TYPE_FLOAT16}

Request = TypeVar("Request", aligner_pb2.AlignRequest, aligner_pb2.ComputeLossesRequest)


@dataclass(frozen=True)
class LossBatch:
    """Losses and error signals of a batch.

    Attributes:
        losses: (B,) float64; +inf where the aligner has none.
        signals: (B, T, V) float32, ∂ loss_b / ∂ logits[b]; 0 past the end, and where the aligner has none.
        reasons: for each utterance None, or why the aligner has none.
    """

    losses: torch.Tensor
    signals: torch.Tensor
    reasons: tuple[str | None, ...]


class ScoredBatch:
    """Scores of a batch on their way to the service.

    Args:
        names: B segments.
        scores: (B, T, V) float; natural log, larger is better. Sent as float32, or float16 where they are that.
        lengths: (B,) int frames.
        etag: the labels that the columns are.

    Raises:
        ArgumentError and its kin: what isn't so.
    """

    def __init__(
        self, names: Sequence[str], scores: torch.Tensor, lengths: torch.Tensor, *, etag: str
    ) -> None:
        if scores.dim() != 3 or scores.shape[0] != len(names):
            raise ShapeError(
                f"scores must have shape ({len(names)}, T, V), got {tuple(scores.shape)}", argument="scores"
            )
        if not scores.is_floating_point():
            raise DtypeError(f"scores must be floating-point, got {scores.dtype}", argument="scores")
        if lengths.shape != (len(names),) or lengths.is_floating_point():
            raise ShapeError(
                f"lengths must be ({len(names)},) integers, got {lengths.dtype} {tuple(lengths.shape)}",
                argument="lengths",
            )
        self.names = tuple(names)
        self.lengths = lengths.cpu().long()
        limit = scores.shape[1]
        bad = ((self.lengths < 0) | (self.lengths > limit)).nonzero()
        if bad.numel():
            b = int(bad[0])
            raise ArgumentError(
                f"lengths[{b}] = {int(self.lengths[b])} must lie in 0 … {limit}", argument="lengths"
            )
        self.limit, self.num_labels = limit, scores.shape[2]
        kind = scores.dtype if scores.dtype in _WIRE else torch.float32
        host = scores.detach().to(device="cpu", dtype=kind)
        self.rows: list[NDArray[Any]] = [
            host[b, :frames].contiguous().numpy() for b, frames in enumerate(self.lengths.tolist())
        ]
        self.dtype: np.dtype[Any] = SCORE_DTYPES[_WIRE[kind]]
        self._header = aligner_pb2.ScoresHeader(
            segments=self.names, num_frames=self.lengths.tolist(), num_labels=self.num_labels, dtype=_WIRE[kind],
            inventory_etag=etag,
        )  # fmt: skip

    @property
    def num_bytes(self) -> int:
        """Of the scores."""
        return sum(row.nbytes for row in self.rows)

    def messages(self, kind: type[Request]) -> Iterator[Request | Data]:
        """Header and data."""
        yield kind(header=self._header)
        yield from chunks(self.rows)

    def put(self, region: SharedRegion) -> aligner_pb2.ScoresHeader:
        """Puts the scores into shared memory; the header that says so, and where the signals are to go."""
        header = aligner_pb2.ScoresHeader()
        header.CopyFrom(self._header)
        offset = 0
        for row in self.rows:
            region.array(offset, row.shape, self.dtype)[...] = row
            offset += row.nbytes
        size = self.num_bytes
        header.shared.CopyFrom(aligner_pb2.SharedMemoryRange(name=region.name, offset=0, bytes=size))
        header.result.CopyFrom(
            aligner_pb2.SharedMemoryRange(name=region.name, offset=aligned(size), bytes=size)
        )
        return header

    def region_bytes(self) -> int:
        """What a region for scores and signals must hold."""
        return aligned(self.num_bytes) + self.num_bytes

    def signals_in(self, region: SharedRegion) -> NDArray[Any]:
        """(ΣT, V) the signals that the server has put into shared memory."""
        frames = int(self.lengths.sum())
        return region.array(aligned(self.num_bytes), (frames, self.num_labels), self.dtype)

    def padded(self, rows: NDArray[Any]) -> torch.Tensor:
        """(B, T, V) float32 of rows (ΣT, V), 0 past the end."""
        signals = np.empty((len(self.names), self.limit, self.num_labels), dtype=np.float32)
        begin = 0
        for b, frames in enumerate(self.lengths.tolist()):
            signals[b, :frames] = rows[begin : begin + frames]
            signals[b, frames:] = 0.0
            begin += frames
        return torch.from_numpy(signals)


def read_losses(
    responses: Iterable[aligner_pb2.ComputeLossesResponse | Data], batch: ScoredBatch, *, target: str
) -> tuple[aligner_pb2.LossesHeader, NDArray[np.float64], NDArray[np.uint8]]:
    """The header of an answer, its losses (B,), and its data.

    Raises:
        AlignerError: the answer contradicts itself or the request.
    """
    messages = iter(responses)
    first = next(messages, None)
    if first is None or isinstance(first, Data) or first.WhichOneof("part") != "header":
        raise AlignerError(f"aligner at {target}: losses begin without a header", target=target)
    header = first.header
    count = len(batch.names)
    try:
        losses = unpack(header.losses, name="losses", dtypes=("float64",), shape=(count,))
    except PackedArrayError as error:
        raise AlignerError(f"aligner at {target}: malformed losses: {error}", target=target) from error
    if len(header.statuses) != count:
        raise AlignerError(
            f"aligner at {target}: {len(header.statuses)} statuses for {count} segments", target=target
        )
    # numpy's memory comes in huge pages, where there are any: touching that many bytes for the first time takes longer
    # than copying them.
    data = np.empty(batch.num_bytes, dtype=np.uint8)
    filled = 0
    for message in messages:
        chunk = message.data
        if filled + len(chunk) > len(data):
            raise AlignerError(
                f"aligner at {target}: signals of more than the {len(data)} bytes of the scores",
                target=target,
            )
        data.data[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    return header, losses, data[:filled]
