"""Fuzz of the readers of Sprint caches: each mutated archive, alignment, bundle or list of allophones is either refused
with DataError, or read, and an alignment that was read round-trips. What is read takes memory in proportion to its
bytes, whatever counts and sizes it states.

    python -m tests.fuzz.caches --seconds 60 [--seed N]
"""

from __future__ import annotations

import argparse
import random
import struct
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from seqtrain.align.sprint_cache import (
    Allophones,
    SprintAlignment,
    decode_alignment,
    encode_alignment,
    from_soft_labels,
    open_archive,
)
from seqtrain.errors import DataError
from tests.fuzz.turns import turns_for

GOLDENS = Path(__file__).parents[1] / "goldens" / "rasr"
NUMBERS = [
    0,
    1,
    2,
    7,
    13,
    0x7F,
    0x80,
    0xFF,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 31) + 1,
    (1 << 31) + 2,
    (1 << 32) - 1,
]
TOKENS = [
    *(
        b"SP_ARC1\0",
        b"\x55\xaa\x55\xaa",
        b"\xaa\x55\xaa\x55",
        b"flow-alignment",
        b"ALIGNRLE",
        b"AALPHRLE",
        b"ALIGNEMI",
    ),
    *(
        b"\x1f\x8b\x08",
        b"\0" * 4,
        b"\xff" * 4,
        b"\x80",
        b"\xfe",
        b"\x7f",
        b"\n",
        b"\0",
        b"{#+#}",
        b"@i@f",
        b"# ",
        b"..",
    ),
    *(b"a.cache", b"a.bundle", b"/dev/null", b"."),
]
MOST_BYTES_PER_BYTE = 2000
"""Of memory for a byte of a file: a gzip stream grows up to 1032-fold, and a stretch of 5 bytes to 128 items of 12."""
LEAST_BYTES = 4 << 20
LONGEST_TO_KEEP = 4000


def archives() -> list[bytes]:
    """Whole archives: RASR's."""
    found = [path.read_bytes() for path in sorted((GOLDENS / "align").glob("*.cache"))]
    return [
        content if len(content) < LONGEST_TO_KEEP else content[:9] + content[7000:] for content in found
    ] + [content[:8] + b"\0" + content[9:] for content in found]


def payloads() -> list[bytes]:
    """Alignments of all kinds: RASR's, and ours of those that it didn't write here."""
    found = []
    for path in sorted((GOLDENS / "align").glob("*.cache")):
        with open_archive(path) as archive:
            found += [archive.read(name) for name in archive]
    soft = from_soft_labels(np.full((3, 4), 0.25))
    parts = (soft.kind, soft.times, soft.labels, soft.weights)
    found.append(encode_alignment(SprintAlignment(*parts, weight_format="uint16")))
    named = SprintAlignment(
        "allophone-state", soft.times[::4], soft.labels[::4], alphabet={0: "AA{#+#}@i.0", 7: "B"}
    )
    found.append(encode_alignment(named))
    return [payload for payload in found if len(payload) < LONGEST_TO_KEEP]


def mutated(content: bytes, others: list[bytes], source: random.Random) -> bytes:
    """The bytes after a few random changes."""
    changed = bytearray(content)
    for _ in range(source.choice((1, 1, 1, 2, 3, 8))):
        kind = source.randrange(8)
        at = source.randrange(len(changed) + 1)
        if kind == 0:
            del changed[at : at + source.choice((1, 1, 4, 50))]
        elif kind == 1:
            changed[at : at + source.choice((0, 4, 8))] = source.choice(TOKENS)
        elif kind == 2:
            changed[at : at + 4] = struct.pack("<I", source.choice(NUMBERS))
        elif kind == 3:
            changed[at : at + 1] = bytes([source.randrange(256)])
        elif kind == 4:
            other = source.choice(others)
            changed[at:] = other[source.randrange(len(other) + 1) :]
        elif kind == 5:
            del changed[at:]
        elif kind == 6:
            first, last = sorted(source.randrange(len(changed) + 1) for _ in range(2))
            changed[at:at] = changed[first : min(last, first + 400)]
        elif changed:
            changed[at % len(changed)] ^= 1 << source.randrange(8)
    return bytes(changed)


def check_alignment(payload: bytes) -> None:
    """Reads an alignment, and back from what is written of it.

    Raises:
        DataError: it is malformed. AssertionError: it doesn't round-trip.
    """
    alignment = decode_alignment(payload, path="fuzz.cache", name="fuzz")
    if not decode_alignment(encode_alignment(alignment)).equal(alignment):
        raise AssertionError(f"{alignment} doesn't round-trip")


class Reader:
    """What reads a kind of bytes, and valid ones to begin with."""

    def __init__(self, name: str, contents: list[bytes], read: Callable[[bytes], None]) -> None:
        self.name = name
        self.contents = contents
        self.valid = len(contents)
        self.read = read

    def keep(self, content: bytes, source: random.Random) -> None:
        """What got through is a good place to go on from."""
        if len(content) >= LONGEST_TO_KEEP:
            return
        if len(self.contents) < 200:
            self.contents.append(content)
        else:
            self.contents[source.randrange(self.valid, len(self.contents))] = content


def readers(folder: Path) -> list[Reader]:
    """All of them; `folder` is for the files they read."""
    (folder / "folder").mkdir()
    (folder / "folder" / "entry").write_bytes(payloads()[0])
    (folder / "b.cache").write_bytes((GOLDENS / "align" / "mono3.viterbi.cache").read_bytes())

    def archive(content: bytes, *, recover: bool) -> None:
        path = folder / "a.cache"
        path.write_bytes(content)
        refused: DataError | None = None
        with open_archive(path, recover=recover) as opened:
            for name in opened:
                try:
                    check_alignment(opened.read(name))
                except DataError as error:
                    refused = error
        if refused is not None:
            raise refused

    def bundle(content: bytes) -> None:
        path = folder / "a.bundle"
        path.write_bytes(content)
        with open_archive(path, folders=[folder]) as opened:
            for name in opened:
                check_alignment(opened.read(name))

    def allophones(content: bytes) -> None:
        path = folder / "allophones.txt"
        path.write_bytes(content)
        for label, allophone in enumerate(found := Allophones.read(path)):
            if found.state(label).allophone != allophone or found.label(found.state(label)) != label:
                raise AssertionError(f"{allophone} isn't number {label}")

    lists = [path.read_bytes() for path in sorted((GOLDENS / "allophones").glob("*.txt"))]
    return [
        Reader("archive", archives(), lambda content: archive(content, recover=False)),
        Reader("archive, recovered", archives(), lambda content: archive(content, recover=True)),
        Reader("alignment", payloads(), check_alignment),
        Reader("bundle", [b"b.cache\nfolder\n", b"folder\n\n"], bundle),
        Reader("allophones", lists, allophones),
    ]


def fuzz(turns: Iterable[object], seed: int) -> Counter[str]:
    """Run for so many turns; how often each reader took and refused what it got.

    Raises:
        RuntimeError: anything but DataError came out, or more memory was taken than the bytes warrant; holds them.
    """
    source = random.Random(seed)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        every = readers(Path(folder))
        tracemalloc.start()
        try:
            for _ in turns:
                for reader in every:
                    content = mutated(source.choice(reader.contents), reader.contents, source)
                    outcomes[f"{reader.name}: {_outcome(reader, content, source, seed)}"] += 1
        finally:
            tracemalloc.stop()
    return outcomes


def _outcome(reader: Reader, content: bytes, source: random.Random, seed: int) -> str:
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    outcome = "accepted"
    try:
        reader.read(content)
        reader.keep(content, source)
    except DataError:
        outcome = "refused"
    except Exception as error:  # the very thing this program looks for
        raise RuntimeError(f"{reader.name} (seed {seed}): {error!r} from {content!r}") from error
    taken = tracemalloc.get_traced_memory()[1] - before
    if taken > LEAST_BYTES + MOST_BYTES_PER_BYTE * len(content):
        raise RuntimeError(f"{reader.name} (seed {seed}): took {taken} bytes to read {content!r}")
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    outcomes = fuzz(turns_for(arguments.seconds), arguments.seed)
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:9d}  {outcome}")
    print(f"{outcomes.total():9d}  files read, nothing found")


if __name__ == "__main__":
    main()
