"""From the messages of the service to automata and alignments."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from seqtrain.aligner.v1 import aligner_pb2
from seqtrain.aligner.v1.packed_array import PackedArrayError, unpack
from seqtrain.errors import AlignerError, AlignerItemError, FsaError
from seqtrain.fsa import Fsa, FsaBatch

__all__ = [
    "AutomataAnswer",
    "item_error",
    "pad_labels",
    "read_alignments",
    "read_automata",
    "read_automata_batch",
]

_FLOATS = ("float32", "float64")


class AutomataAnswer(NamedTuple):
    """A checked answer: the automata of those segments that have one, named, in order; and of the others what is
    wrong, by their places.
    """

    batch: FsaBatch
    errors: dict[int, AlignerItemError]

    def items(self) -> Iterator[Fsa | AlignerItemError]:
        """For each segment its automaton, which owns its memory, or what is wrong with it."""
        automata = iter(self.batch)
        for index in range(len(self.batch) + len(self.errors)):
            error = self.errors.get(index)
            yield _owning(next(automata)) if error is None else error


def read_automata(
    answer: aligner_pb2.GetAutomataResponse, segments: Sequence[str], *, target: str
) -> Iterator[Fsa | AlignerItemError]:
    """For each segment of the request its automaton, which owns its memory, or what is wrong with it.

    Raises:
        AlignerError: as `read_automata_batch`.
    """
    yield from read_automata_batch(answer, segments, target=target).items()


def read_automata_batch(
    answer: aligner_pb2.GetAutomataResponse, segments: Sequence[str], *, target: str
) -> AutomataAnswer:
    """The automata of an answer as one batch, and what is wrong with the segments that have none.

    Raises:
        AlignerError: the answer contradicts itself or the request, or an automaton is malformed.
    """
    try:
        count = _count_good(answer.statuses, segments)
        num_arcs = unpack(answer.num_arcs, name="num_arcs", dtypes=("int64",), shape=(count,))
        num_finals = unpack(answer.num_finals, name="num_finals", dtypes=("int64",), shape=(count,))
        arc_offsets, final_offsets = _offsets(num_arcs, "num_arcs"), _offsets(num_finals, "num_finals")
        total_arcs, total_finals = int(arc_offsets[-1]), int(final_offsets[-1])
        # One check of the whole batch, vectorized: what comes from another process isn't taken on trust.
        batch = FsaBatch(
            unpack(answer.arcs, name="arcs", dtypes=("int32",), shape=(total_arcs, 3)),
            torch.from_numpy(unpack(answer.weights, name="weights", dtypes=_FLOATS, shape=(total_arcs,))),
            final_states=unpack(
                answer.final_states, name="final_states", dtypes=("int32",), shape=(total_finals,)
            ),
            final_weights=torch.from_numpy(
                unpack(answer.final_weights, name="final_weights", dtypes=_FLOATS, shape=(total_finals,))
            ),
            starts=unpack(answer.starts, name="starts", dtypes=("int32",), shape=(count,)),
            num_states=unpack(answer.num_states, name="num_states", dtypes=("int32",), shape=(count,)),
            arc_offsets=arc_offsets,
            final_offsets=final_offsets,
            tags=[
                segment
                for segment, status in zip(segments, answer.statuses, strict=True)
                if status.code == aligner_pb2.ITEM_CODE_OK
            ],
        )
    except (PackedArrayError, FsaError) as error:
        raise AlignerError(f"aligner at {target}: malformed automata: {error}", target=target) from error
    return AutomataAnswer(
        batch,
        {
            index: item_error(status, segments[index], target=target)
            for index, status in enumerate(answer.statuses)
            if status.code != aligner_pb2.ITEM_CODE_OK
        },
    )


def read_alignments(
    answers: Sequence[aligner_pb2.GetAlignmentsResponse], segments: Sequence[str], *, target: str
) -> Iterator[NDArray[np.int32] | AlignerItemError]:
    """For each segment of the request the labels (T,) int32 of its frames, or what is wrong with it.

    Raises:
        AlignerError: the answer contradicts itself or the request.
    """
    statuses = [status for answer in answers for status in answer.statuses]
    found: list[NDArray[np.int32]] = []
    try:
        _count_good(statuses, segments)
        for answer in answers:
            count = _count_good(answer.statuses, answer.statuses)
            frames = unpack(answer.num_frames, name="num_frames", dtypes=("int64",), shape=(count,))
            offsets = _offsets(frames, "num_frames")
            labels = unpack(answer.labels, name="labels", dtypes=("int32",), shape=(int(offsets[-1]),))
            found += [labels[begin:end] for begin, end in itertools.pairwise(offsets)]
    except PackedArrayError as error:
        raise AlignerError(f"aligner at {target}: malformed alignments: {error}", target=target) from error
    labels_of = iter(found)
    for segment, status in zip(segments, statuses, strict=True):
        if status.code == aligner_pb2.ITEM_CODE_OK:
            yield next(labels_of)
        else:
            yield item_error(status, segment, target=target)


def item_error(status: aligner_pb2.ItemStatus, segment: str, *, target: str) -> AlignerItemError:
    """The error for a segment that the server has nothing for."""
    names = {number: name for name, number in aligner_pb2.ItemCode.items()}
    # A newer server may know reasons that this client doesn't: still an error, with the server's own words.
    name = names.get(status.code, f"ITEM_CODE_{int(status.code)}").removeprefix("ITEM_CODE_").lower()
    return AlignerItemError(
        f"aligner at {target}: segment {segment!r}: {name}: {status.message}",
        segment=segment,
        status=name,
        words=tuple(status.words),
        target=target,
    )


def _count_good(statuses: Sequence[aligner_pb2.ItemStatus], items: Sequence[object]) -> int:
    if len(statuses) != len(items):
        raise PackedArrayError(f"{len(statuses)} statuses for {len(items)} segments")
    return sum(status.code == aligner_pb2.ITEM_CODE_OK for status in statuses)


def _offsets(counts: NDArray[Any], name: str) -> NDArray[np.int64]:
    if (counts < 0).any() or (counts > np.iinfo(np.int32).max).any():
        raise PackedArrayError(f"{name}: a count is outside 0…{np.iinfo(np.int32).max}")
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)))


def _owning(fsa: Fsa) -> Fsa:
    """The automaton, which the check of its batch has been through, with memory of its own."""
    return Fsa._from_checked(
        fsa.arcs.clone(),
        fsa.weights.clone(),
        fsa.num_states,
        fsa.start,
        fsa.final_states.clone(),
        fsa.final_weights.clone(),
    )


def pad_labels(labels: Sequence[NDArray[np.int32]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (B, T) int64, -1 past the end, and lengths (B,) int64."""
    lengths = torch.tensor([len(row) for row in labels], dtype=torch.int64)
    padded = torch.full((len(labels), int(lengths.max()) if len(labels) else 0), -1, dtype=torch.int64)
    for target, row in zip(padded, labels, strict=True):
        target[: len(row)] = torch.from_numpy(row)
    return padded, lengths
