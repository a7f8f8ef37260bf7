"""Automata as the messages that carry them: whole batches, and single automata packed once and joined at will."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seqtrain.aligner.v1 import aligner_pb2
from seqtrain.aligner.v1.packed_array import pack, pack_raw
from seqtrain.fsa import FsaBatch

__all__ = ["PackedAutomaton", "automata_message", "join_automata", "pack_automata"]


class PackedAutomaton(NamedTuple):
    """One automaton as its part of a message: numbers, and the bytes of its arrays, little endian.

    Attributes:
        num_states, start, num_arcs, num_finals: as of `Fsa`.
        dtype: of both weights, "float32" or "float64".
        arcs: int32 (A, 3).
        weights: (A,).
        final_states: int32 (F,).
        final_weights: (F,).
    """

    num_states: int
    start: int
    num_arcs: int
    num_finals: int
    dtype: str
    arcs: bytes
    weights: bytes
    final_states: bytes
    final_weights: bytes

    @property
    def num_bytes(self) -> int:
        """Of its arrays."""
        return len(self.arcs) + len(self.weights) + len(self.final_states) + len(self.final_weights)

    def in_double(self) -> PackedAutomaton:
        """The same automaton with float64 weights."""
        if self.dtype == "float64":
            return self
        weights, final_weights = (
            np.frombuffer(raw, dtype="<f4").astype("<f8").tobytes()
            for raw in (self.weights, self.final_weights)
        )
        return self._replace(dtype="float64", weights=weights, final_weights=final_weights)


def pack_automata(batch: FsaBatch) -> list[PackedAutomaton]:
    """Packs each automaton of a batch on CPU."""
    dtype = "float64" if batch.weights.element_size() == 8 else "float32"

    def pieces(array: NDArray[Any], kind: str, offsets: list[int]) -> list[bytes]:
        raw = np.ascontiguousarray(array, dtype=kind).tobytes()
        row = len(raw) // max(1, offsets[-1])
        return [raw[begin * row : end * row] for begin, end in pairwise(offsets)]

    floats = "<f8" if dtype == "float64" else "<f4"
    arc_offsets, final_offsets = batch.arc_offsets.tolist(), batch.final_offsets.tolist()
    return [
        PackedAutomaton(num_states, start, arcs_end - arcs_begin, finals_end - finals_begin, dtype, *parts)
        for num_states, start, (arcs_begin, arcs_end), (finals_begin, finals_end), *parts in zip(
            batch.num_states.tolist(),
            batch.starts.tolist(),
            pairwise(arc_offsets),
            pairwise(final_offsets),
            pieces(batch.arcs.numpy(), "<i4", arc_offsets),
            pieces(batch.weights.detach().numpy(), floats, arc_offsets),
            pieces(batch.final_states.numpy(), "<i4", final_offsets),
            pieces(batch.final_weights.detach().numpy(), floats, final_offsets),
            strict=True,
        )
    ]


def join_automata(
    automata: Sequence[PackedAutomaton],
    statuses: Sequence[aligner_pb2.ItemStatus],
    *,
    inventory_etag: str,
    config_digest: str,
    request_id: int = 0,
) -> aligner_pb2.GetAutomataResponse:
    """The message of `automata_message`, from packed automata."""
    if len({automaton.dtype for automaton in automata}) > 1:
        automata = [automaton.in_double() for automaton in automata]
    floats = aligner_pb2.D_TYPE_FLOAT32
    if automata and automata[0].dtype == "float64":
        floats = aligner_pb2.D_TYPE_FLOAT64

    def numbers(of: Callable[[PackedAutomaton], int], dtype: str) -> aligner_pb2.PackedArray:
        return pack(np.array([of(automaton) for automaton in automata], dtype=dtype))

    def bytes_of(of: Callable[[PackedAutomaton], bytes]) -> bytes:
        return b"".join([of(automaton) for automaton in automata])

    arcs = sum(automaton.num_arcs for automaton in automata)
    finals = sum(automaton.num_finals for automaton in automata)
    return aligner_pb2.GetAutomataResponse(
        request_id=request_id,
        inventory_etag=inventory_etag,
        config_digest=config_digest,
        statuses=statuses,
        num_states=numbers(lambda automaton: automaton.num_states, "<i4"),
        starts=numbers(lambda automaton: automaton.start, "<i4"),
        num_arcs=numbers(lambda automaton: automaton.num_arcs, "<i8"),
        arcs=pack_raw(aligner_pb2.D_TYPE_INT32, (arcs, 3), bytes_of(lambda automaton: automaton.arcs)),
        weights=pack_raw(floats, (arcs,), bytes_of(lambda automaton: automaton.weights)),
        num_finals=numbers(lambda automaton: automaton.num_finals, "<i8"),
        final_states=pack_raw(
            aligner_pb2.D_TYPE_INT32, (finals,), bytes_of(lambda automaton: automaton.final_states)
        ),
        final_weights=pack_raw(floats, (finals,), bytes_of(lambda automaton: automaton.final_weights)),
    )


def automata_message(
    batch: FsaBatch,
    statuses: Sequence[aligner_pb2.ItemStatus],
    *,
    inventory_etag: str,
    config_digest: str,
    request_id: int = 0,
) -> aligner_pb2.GetAutomataResponse:
    """The automata of those items whose status is OK, in order, with the status of every item."""
    return aligner_pb2.GetAutomataResponse(
        request_id=request_id,
        inventory_etag=inventory_etag,
        config_digest=config_digest,
        statuses=statuses,
        num_states=pack(batch.num_states.numpy()),
        starts=pack(batch.starts.numpy()),
        num_arcs=pack(np.diff(batch.arc_offsets.numpy())),
        arcs=pack(batch.arcs.numpy()),
        weights=pack(batch.weights.numpy()),
        num_finals=pack(np.diff(batch.final_offsets.numpy())),
        final_states=pack(batch.final_states.numpy()),
        final_weights=pack(batch.final_weights.numpy()),
    )
