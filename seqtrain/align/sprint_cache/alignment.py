"""Alignments as RASR's aligner caches them: items of time, label and perhaps weight, in the bytes of an entry.

An entry is one packet of RASR's Flow:

    u32 length, "flow-alignment", u32 1, alignment, f64 start, f64 end

and the alignment begins with eight letters that say what its labels are, `ALIGNRLE` (allophone states), `AALPHRLE` (the
same, and their names stand in it) or `ALIGNEMI` (emissions, the columns of the scores). What follows is either in run
lengths, without weights, or weighted; see `items`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seqtrain.align.sprint_cache.archive import Archive, archive_error
from seqtrain.align.sprint_cache.items import (
    MAX_ITEMS,
    WEIGHTED,
    Items,
    MalformedError,
    decode_packed,
    decode_run_lengths,
    decode_weighted,
    encode_packed,
    encode_run_lengths,
    encode_weighted,
    take,
)
from seqtrain.align.sprint_cache.layout import U32
from seqtrain.align.sprint_cache.writer import SpArchiveWriter
from seqtrain.errors import ArgumentError, DtypeError, ShapeError

__all__ = ["SprintAlignment", "decode_alignment", "encode_alignment", "read_alignment", "write_alignments"]

Kind = Literal["allophone-state", "emission"]
WeightFormat = Literal["float32", "uint16"]

_FLOW_TYPE = b"flow-alignment"
_STATES, _NAMED_STATES, _EMISSIONS = b"ALIGNRLE", b"AALPHRLE", b"ALIGNEMI"
_KINDS: dict[bytes, Kind] = {
    _STATES: "allophone-state",
    _NAMED_STATES: "allophone-state",
    _EMISSIONS: "emission",
}
_SPAN = struct.Struct("<dd")
_VERSIONS: dict[WeightFormat, int] = {"uint16": 1, "float32": 2}


@dataclass(frozen=True, eq=False)
class SprintAlignment:
    """What an aligner says about a segment: N items, in the order in which they stand in the cache.

    Attributes:
        kind: what labels are: ids of allophone states (see `Allophones`), or emissions, the columns of the scores.
        times: (N,) int64, the frame of each item.
        labels: (N,) uint32.
        weights: (N,) float32 probabilities of an item within its frame; None: one label a frame, without weight.
        start, end: of the segment in seconds; 0 where the aligner didn't say, as RASR's doesn't.
        alphabet: name of each allophone state, `C{L+R}@i@f.state`, or None where the cache doesn't carry them.
        weight_format: how weights are written; uint16 rounds them to multiples of 1/65535.

    Raises:
        ShapeError, DtypeError: arrays of other shapes or dtypes.
        ArgumentError: a time or name that doesn't fit the format, a weight that is negative or not finite, or above 1
            with uint16; an alphabet of emissions; an unknown kind or format.
    """

    kind: Kind
    times: NDArray[np.int64]
    labels: NDArray[np.uint32]
    weights: NDArray[np.float32] | None = None
    start: float = 0.0
    end: float = 0.0
    alphabet: Mapping[int, str] | None = None
    weight_format: WeightFormat = "float32"

    def __post_init__(self) -> None:
        if self.kind not in ("allophone-state", "emission"):
            raise ArgumentError(
                f"kind must be 'allophone-state' or 'emission', got {self.kind!r}", argument="kind"
            )
        if self.weight_format not in _VERSIONS:
            raise ArgumentError(
                f"weight_format must be 'float32' or 'uint16', got {self.weight_format!r}",
                argument="weight_format",
            )
        for name, dtype in (("times", np.int64), ("labels", np.uint32), ("weights", np.float32)):
            array = getattr(self, name)
            if array is None:
                continue
            if array.dtype != dtype:
                raise DtypeError(f"{name} must be {np.dtype(dtype)}, got {array.dtype}", argument=name)
            if array.shape != (len(self.times),):
                raise ShapeError(
                    f"{name} must be ({len(self.times)},) like times, got {array.shape}", argument=name
                )
        if len(self.times) and not 0 <= int(self.times.min()) <= int(self.times.max()) < 1 << 32:
            raise ArgumentError(
                f"times must be in 0 … 2³² - 1, got {self.times.min()} … {self.times.max()}", argument="times"
            )
        self._check_weights()
        if self.alphabet is not None:
            if self.kind == "emission":
                raise ArgumentError("an alphabet names allophone states, not emissions", argument="alphabet")
            stray = [label for label in self.alphabet if not 0 <= label < 1 << 32]
            if stray:
                raise ArgumentError(f"the alphabet names {stray[0]}, no id of 32 bits", argument="alphabet")

    def _check_weights(self) -> None:
        if self.weights is None:
            return
        most = 1.0 if self.weight_format == "uint16" else float(np.finfo(np.float32).max)
        bad = np.flatnonzero(~((self.weights >= 0) & (self.weights <= most)))
        if bad.size:
            raise ArgumentError(
                f"weights are probabilities, got {self.weights[bad[0]]} for item {bad[0]}", argument="weights"
            )

    def __len__(self) -> int:
        return len(self.times)

    def equal(self, other: SprintAlignment) -> bool:
        """Whether both say the same, bit for bit."""
        return (
            self.kind == other.kind
            and np.array_equal(self.times, other.times)
            and np.array_equal(self.labels, other.labels)
            and (self.weights is None) == (other.weights is None)
            and (
                self.weights is None
                or other.weights is None
                or (
                    self.weight_format == other.weight_format
                    and self.weights.tobytes() == other.weights.tobytes()
                )
            )
            and _SPAN.pack(self.start, self.end) == _SPAN.pack(other.start, other.end)
            and (self.alphabet is None) == (other.alphabet is None)
            and list((self.alphabet or {}).items()) == list((other.alphabet or {}).items())
        )


def read_alignment(archive: Archive, name: str) -> SprintAlignment:
    """An alignment of an archive.

    Raises:
        DataError: there is no such entry, it is broken, or holds no alignment.
    """
    return decode_alignment(archive.read(name), path=str(archive.origin(name)), name=name)


def write_alignments(
    path: str | Path, alignments: Mapping[str, SprintAlignment], *, compress: bool = False
) -> None:
    """Writes an archive of alignments, by segment; atomically.

    Raises:
        DataError: a segment has no name, or is too long for an archive.
    """
    with SpArchiveWriter(path, compress=compress) as archive:
        for name, alignment in alignments.items():
            archive.add(name, encode_alignment(alignment))


def decode_alignment(
    payload: bytes, *, path: str | None = None, name: str | None = None, max_items: int = MAX_ITEMS
) -> SprintAlignment:
    """The alignment that an entry holds; the inverse of `encode_alignment`.

    Args:
        payload: the entry's content.
        path, name: of the archive and of the entry, for errors.
        max_items: the most items to read; a longer alignment is taken for a broken count or an attack.

    Raises:
        DataError: it is no alignment, of an unknown kind or version, truncated, or its counts don't fit.
    """
    try:
        return _decode(payload, max_items)
    except (MalformedError, ArgumentError) as error:
        raise archive_error(path, str(error), entry=name) from error


def _decode(payload: bytes, max_items: int) -> SprintAlignment:
    (length,) = U32.unpack(take(payload, 0, U32.size, "the Flow type"))
    at = U32.size + length
    flow_type = take(payload, U32.size, length, "the Flow type")
    if flow_type != _FLOW_TYPE:
        raise MalformedError(f"holds {flow_type[:40]!r}, no {_FLOW_TYPE.decode()!r}")
    (count,) = U32.unpack(take(payload, at, U32.size, "the number of alignments"))
    if count != 1:
        raise MalformedError(f"holds {count} alignments, and one is read")
    at += U32.size
    magic = take(payload, at, len(_STATES), "the kind of alignment")
    at += len(magic)
    if magic not in _KINDS:
        known = ", ".join(kind.decode() for kind in _KINDS)
        raise MalformedError(f"is an alignment of the kind {magic!r}; known are {known}")
    if magic == _NAMED_STATES:
        return _decode_named(payload, at, max_items)
    return _finish(payload, _decode_items(payload, at, max_items), _KINDS[magic], None)


def _decode_named(payload: bytes, at: int, max_items: int) -> SprintAlignment:
    """With an alphabet, on whichever side of the items it stands.

    No cache of this kind was at hand to see where RASR puts it. We write it behind the items; one that stands before
    them is found by this: only one of the two readings comes out even at the end of the entry.
    """
    try:
        items = _decode_items(payload, at, max_items)
        alphabet, end = _decode_alphabet(payload, items.end)
        return _finish(payload, items._replace(end=end), "allophone-state", alphabet)
    except (MalformedError, ArgumentError) as behind:
        try:
            alphabet, at = _decode_alphabet(payload, at)
            return _finish(payload, _decode_items(payload, at, max_items), "allophone-state", alphabet)
        except (MalformedError, ArgumentError):
            raise behind from None


def _decode_items(payload: bytes, at: int, max_items: int) -> Items:
    (number,) = U32.unpack(take(payload, at, U32.size, "the number of items"))
    at += U32.size
    if number < WEIGHTED:
        return decode_run_lengths(payload, at, number, max_items=max_items)
    return decode_weighted(payload, at, number - WEIGHTED, max_items=max_items)


def _decode_alphabet(payload: bytes, at: int) -> tuple[dict[int, str], int]:
    count, at = decode_packed(payload, at, "the size of the alphabet")
    alphabet: dict[int, str] = {}
    for _ in range(count):
        label, at = decode_packed(payload, at, "the alphabet")
        (length,) = U32.unpack(take(payload, at, U32.size, "the alphabet"))
        symbol = take(payload, at + U32.size, length, "the alphabet")
        at += U32.size + length
        if label in alphabet:
            raise MalformedError(f"the alphabet names {label} twice")
        try:
            alphabet[label] = symbol.decode()
        except UnicodeDecodeError as error:
            raise MalformedError(f"the alphabet names {label} {symbol[:40]!r}, which isn't UTF-8") from error
    return alphabet, at


def _finish(payload: bytes, items: Items, kind: Kind, alphabet: Mapping[int, str] | None) -> SprintAlignment:
    span = take(payload, items.end, _SPAN.size, "start and end")
    if len(payload) != items.end + _SPAN.size:
        raise MalformedError(f"{len(payload) - items.end - _SPAN.size} bytes follow the alignment's end")
    start, end = _SPAN.unpack(span)
    return SprintAlignment(
        kind,
        items.times,
        items.labels,
        items.weights,
        start,
        end,
        alphabet,
        "uint16" if items.version == _VERSIONS["uint16"] else "float32",
    )


def encode_alignment(alignment: SprintAlignment) -> bytes:
    """The bytes of an entry, as RASR writes them where it writes such an alignment.

    `decode_alignment` gives the same alignment back, with the weights that uint16 has left of them.
    """
    magic = _EMISSIONS
    if alignment.kind == "allophone-state":
        magic = _STATES if alignment.alphabet is None else _NAMED_STATES
    parts = [U32.pack(len(_FLOW_TYPE)), _FLOW_TYPE, U32.pack(1), magic]
    if alignment.weights is None:
        parts += [U32.pack(len(alignment)), encode_run_lengths(alignment.times, alignment.labels)]
    else:
        version = _VERSIONS[alignment.weight_format]
        parts += [
            U32.pack(WEIGHTED + version),
            encode_weighted(alignment.times, alignment.labels, alignment.weights, version),
        ]
    if alignment.alphabet is not None:
        parts.append(encode_packed(len(alignment.alphabet)))
        for label, symbol in alignment.alphabet.items():
            name = symbol.encode()
            parts += [encode_packed(label), U32.pack(len(name)), name]
    parts.append(_SPAN.pack(alignment.start, alignment.end))
    return b"".join(parts)
