"""Alignments in the bytes of a cache: RASR's against its own dump, round trips, malformed ones."""

from __future__ import annotations

import dataclasses
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtrain.align.sprint_cache import (
    SprintAlignment,
    decode_alignment,
    encode_alignment,
    open_archive,
    read_alignment,
    write_alignments,
)
from seqtrain.errors import ArgumentError, DataError, DtypeError, ShapeError
from tests.fsa.strategies import quick

GOLDENS = Path(__file__).parents[1] / "goldens" / "rasr" / "align"
CACHES = ("viterbi", "viterbi_gz", "viterbi_emission", "bw")


def dump() -> dict[tuple[str, str], list[list[str]]]:
    """What RASR printed: (cache, segment) → items of time, allophone state, its name, emission, weight."""
    found: dict[tuple[str, str], list[list[str]]] = {}
    for line in gzip.decompress((GOLDENS / "mono3.txt.gz").read_bytes()).decode().splitlines():
        fields = line.split()
        if fields[0] in CACHES:
            last = found.setdefault((fields[0], fields[1]), [])
        else:
            last.append(fields)
    return found


@pytest.mark.parametrize("cache", CACHES)
def test_rasrs_caches_say_what_it_printed(cache: str) -> None:
    printed = dump()
    with open_archive(GOLDENS / f"mono3.{cache}.cache") as archive:
        assert len(archive) == 6
        for segment in archive:
            alignment = read_alignment(archive, segment)
            time, state, _, emission, weight = zip(*printed[cache, segment], strict=True)
            emissions = cache == "viterbi_emission"
            assert alignment.kind == ("emission" if emissions else "allophone-state")
            assert alignment.times.tolist() == [int(t) for t in time]
            assert alignment.labels.tolist() == [int(label) for label in (emission if emissions else state)]
            assert (alignment.start, alignment.end, alignment.alphabet) == (0.0, 0.0, None)
            if cache == "bw":
                assert alignment.weights is not None
                assert alignment.weights == pytest.approx(np.array(weight, dtype=np.float64), rel=1e-5)
            else:
                assert alignment.weights is None
            assert encode_alignment(alignment) == archive.read(segment)


@pytest.mark.parametrize("cache", ["viterbi", "viterbi_emission", "bw"])
def test_a_cache_decoded_and_written_again_is_rasrs(tmp_path: Path, cache: str) -> None:
    source = GOLDENS / f"mono3.{cache}.cache"
    with open_archive(source) as archive:
        write_alignments(tmp_path / "a.cache", {name: read_alignment(archive, name) for name in archive})
    assert (tmp_path / "a.cache").read_bytes() == source.read_bytes()


_u32 = st.integers(0, (1 << 32) - 1)


@st.composite
def alignments(draw: st.DrawFn) -> SprintAlignment:
    """Any alignment: repeated labels, long stretches, gaps, several items a frame, times that go back."""
    stretches = draw(
        st.lists(
            st.tuples(st.integers(1, 300), st.one_of(st.integers(0, 2), _u32), st.booleans()), max_size=6
        )
    )
    labels = [label for count, label, _ in stretches for label in [label] * min(count, 300)]
    labels += draw(st.lists(st.one_of(st.integers(0, 2), _u32), max_size=12))
    steps = draw(st.sampled_from([st.just(1), st.integers(0, 2), st.integers(0, 1 << 20)]))
    times = np.cumsum([0, *draw(st.lists(steps, min_size=len(labels), max_size=len(labels)))])[: len(labels)]
    times += draw(st.integers(0, 3))
    if draw(st.booleans()):
        times = times[::-1]
    uint16 = draw(st.booleans())
    weights = None
    if draw(st.booleans()):
        cells = st.integers(0, 65535) if uint16 else st.floats(0, 2.0**100, width=32)
        weights = np.array(
            draw(st.lists(cells, min_size=len(labels), max_size=len(labels))), dtype=np.float32
        ) / np.float32(65535 if uint16 else 1)
    kind = draw(st.sampled_from(["emission", "allophone-state"]))
    alphabet = None
    if kind == "allophone-state" and draw(st.booleans()):
        alphabet = draw(st.dictionaries(_u32, st.text(max_size=9), max_size=5))
    seconds = st.floats()
    return SprintAlignment(
        kind,
        times.astype(np.int64),
        np.array(labels, dtype=np.uint32),
        weights,
        draw(seconds),
        draw(seconds),
        alphabet,
        "uint16" if weights is not None and uint16 else "float32",
    )


@given(alignment=alignments())
@quick
def test_round_trip(alignment: SprintAlignment) -> None:
    content = encode_alignment(alignment)
    again = decode_alignment(content)
    assert again.equal(alignment)
    assert encode_alignment(again) == content


@given(alignment=alignments(), cut=st.integers(0, 1 << 20))
@quick
def test_truncated_alignments(alignment: SprintAlignment, cut: int) -> None:
    content = encode_alignment(alignment)
    with pytest.raises(DataError, match="alignment: "):
        decode_alignment(content[: cut % len(content)])


def test_uint16_rounds_to_the_nearest() -> None:
    weights = np.array([0.0, 1.0, 0.5, 1e-6, 0.3], dtype=np.float32)
    alignment = SprintAlignment(
        "emission", np.arange(5), np.zeros(5, dtype=np.uint32), weights, weight_format="uint16"
    )
    again = decode_alignment(encode_alignment(alignment)).weights
    assert again is not None
    assert again == pytest.approx(weights, abs=0.5 / 65535 + 1e-9)
    assert again[:2].tolist() == [0.0, 1.0]


def test_an_alphabet_on_either_side_of_the_items_is_read() -> None:
    alignment = SprintAlignment(
        "allophone-state",
        np.arange(4),
        np.array([17, 0, 0, 1 << 26], dtype=np.uint32),
        alphabet={17: "[SILENCE]{#+#}@i@f.0", 0: "B{#+#}@i.0", 1 << 26: "B{#+#}@i.1"},
    )
    behind = encode_alignment(alignment)
    head, span = behind.index(b"AALPHRLE") + 8, len(behind) - 16
    alphabet = behind.index(b"\3\x11\x14\0\0\0[SILENCE]")
    before = behind[:head] + behind[alphabet:span] + behind[head:alphabet] + behind[span:]
    assert len(before) == len(behind)
    assert decode_alignment(before).equal(alignment)
    assert decode_alignment(behind).equal(alignment)


def flow(body: bytes, *, kind: bytes = b"ALIGNEMI", count: int = 1) -> bytes:
    return struct.pack("<I", 14) + b"flow-alignment" + struct.pack("<I", count) + kind + body + bytes(16)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


WEIGHTED = u32(0x80000002)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "is truncated: the Flow type needs 4 bytes at byte 0 of 0"),
        (u32(1 << 31) + b"flow", "is truncated: the Flow type needs 2147483648 bytes at byte 4 of 8"),
        (u32(15) + b"flow-vector-f32" + bytes(50), "holds b'flow-vector-f32', no 'flow-alignment'"),
        (flow(b"", count=2), "holds 2 alignments, and one is read"),
        (flow(b"", kind=b"ALIGNXML"), "of the kind b'ALIGNXML'; known are ALIGNRLE, AALPHRLE, ALIGNEMI"),
        (flow(b"")[:22], "is truncated: the kind of alignment needs 8 bytes at byte 22 of 22"),
        (flow(b"")[:30], "is truncated: the number of items needs 4 bytes at byte 30 of 30"),
        (flow(u32(0))[:-1], "is truncated: start and end needs 16 bytes at byte 34 of 49"),
        (flow(u32(0) + b"xyz"), "3 bytes follow the alignment's end"),
        (flow(u32(3) + b"\xfe" + u32(7) + b"\xfe" + u32(7)), "has 3 items, and a stretch of 2 begins behind 2"),
        (flow(u32(1 << 30)), "says that it has 1073741824 items, and at most 16777216 are read; pass max_items"),
        (flow(u32(1 << 20)), "is truncated: says that it has 1048576 items, and 16 bytes are left"),
        (flow(u32(3) + b"\x03" + u32(7))[:-12], "is truncated: a stretch of labels needs 12 bytes"),
        (flow(u32(3) + b"\x01" + u32(7) + b"\x02" + u32(7) * 2)[:40], "stretch of labels needs 8 bytes at byte 40"),
        (flow(u32(1) + b"\0" + u32(7))[:-16], "is truncated: a run length needs 1 bytes at byte 39 of 39"),
        (flow(u32(1) + (b"\0" + u32(7)) * 2)[:42], "is truncated: a time needs 4 bytes at byte 40 of 42"),
        (flow(u32(2) + b"\0" + u32(0xFFFFFFFF) + b"\xfe" + u32(7)), "a stretch of 2 items begins at frame 4294967295"),
        (flow(u32(0x80000003)), "is weighted in version 3; known are 1 and 2"),
        (flow(u32(0x80000000)), "is weighted in version 0; known are 1 and 2"),
        (flow(WEIGHTED)[:34], "is truncated: the number of items goes on at byte 34 of 34"),
        (flow(WEIGHTED + b"\xff\xff\xff\xff\xff\x01"), "the number of items is a number of more than 32 bits"),
        (flow(WEIGHTED + b"\xff\xff\xff\xff\x7f"), "the number of items is a number of more than 32 bits"),
        (flow(WEIGHTED + b"\xff\xff\xff\xff\x0f"), "has 4294967295 items, and at most 16777216 are read"),
        (flow(WEIGHTED + b"\x7f"), "is truncated: says that it has 127 items, and 16 bytes are left"),
        (flow(WEIGHTED + b"\x01\x04"), "says that it has 1 items, and a frame of 2 begins behind 0"),
        (flow(WEIGHTED + b"\x01\x03\xff\xff\xff\xff\x0f\0" + bytes(4))[:-17], "start and end needs|is truncated"),
        (flow(WEIGHTED + b"\x02\x03\xff\xff\xff\xff\x0f\0" + bytes(4) + b"\x02"), "follows the last one of 32 bits"),
        (flow(WEIGHTED + b"\x01\x02\0" + bytes(3))[:-16], "is truncated"),
        (flow(WEIGHTED + b"\x02\x04" + (b"\x80\x80\0" + bytes(4)) * 2)[:-17], "the last weight ends at byte 50 of 49"),
        (flow(WEIGHTED + b"\x01\x02\0" + struct.pack("<f", np.nan)), "weights are probabilities, got nan for item 0"),
        (flow(WEIGHTED + b"\x01\x02\0" + struct.pack("<f", -1)), r"weights are probabilities, got -1\.0 for item 0"),
        (flow(u32(0), kind=b"AALPHRLE")[:34], "the size of the alphabet goes on at byte 34 of 34"),
        (flow(u32(0) + b"\x02" + (b"\5" + u32(0)) * 2, kind=b"AALPHRLE"), "the alphabet names 5 twice"),
        (flow(u32(0) + b"\x01\5" + u32(1) + b"\xff", kind=b"AALPHRLE"), r"names 5 b'\\xff', which isn't UTF-8"),
        (flow(u32(0) + b"\x01\5" + u32(99), kind=b"AALPHRLE"), "the alphabet needs 99 bytes"),
    ],
)  # fmt: skip
def test_malformed_alignments(payload: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        decode_alignment(payload, path="a.cache", name="rec/seg")
    assert str(caught.value).startswith("archive a.cache, entry 'rec/seg': ")
    assert (caught.value.path, caught.value.utterance) == ("a.cache", "rec/seg")


def test_what_no_alignment_can_be() -> None:
    times, labels = np.arange(2), np.zeros(2, dtype=np.uint32)
    good = SprintAlignment("emission", times, labels, np.ones(2, dtype=np.float32))
    assert len(good) == 2
    for change, kind, message in (
        ({"kind": "phone"}, ArgumentError, "kind must be 'allophone-state' or 'emission', got 'phone'"),
        ({"weight_format": "f16"}, ArgumentError, "weight_format must be 'float32' or 'uint16', got 'f16'"),
        ({"labels": labels.astype(np.int64)}, DtypeError, "labels must be uint32, got int64"),
        ({"labels": labels[:1]}, ShapeError, r"labels must be \(2,\) like times, got \(1,\)"),
        ({"times": times[None]}, ShapeError, r"times must be \(1,\) like times, got \(1, 2\)"),
        ({"times": times - 1}, ArgumentError, "times must be in 0 … 2³² - 1, got -1 … 0"),
        ({"weights": np.full(2, 1.5, dtype=np.float32), "weight_format": "uint16"}, ArgumentError, "got 1.5 for item"),
        ({"alphabet": {}}, ArgumentError, "an alphabet names allophone states, not emissions"),
        ({"kind": "allophone-state", "alphabet": {-1: "a"}}, ArgumentError, "the alphabet names -1, no id of 32 bits"),
    ):  # fmt: skip
        with pytest.raises(kind, match=message):
            dataclasses.replace(good, **change)
    other = dataclasses.replace(good, weights=None)
    assert not good.equal(other)
    assert not other.equal(good)
    assert not other.equal(dataclasses.replace(other, end=1.0))
