"""Fuzz of the reader of recordings: each mutated file is either refused with DataError, or read, and each answer that
was read can be served. Mutations also come with checksums put right, so that they reach the messages inside. What is
read takes memory in proportion to its bytes, whatever counts and sizes it states.

    python -m tests.fuzz.recordings --seconds 60 [--seed N]
"""

from __future__ import annotations

import argparse
import random
import struct
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from seqtrain.aligner import AlignerClient
from seqtrain.errors import DataError
from sprint_bridge.backends.replay import ReplayBackend
from sprint_bridge.record import RecordingServer
from sprint_bridge.recorded import read_recording
from sprint_bridge.recording import Kind, RecordingWriter, read_records
from tests.bridge.toy import builder, serve
from tests.fuzz.turns import turns_for

TAGS = ["toy/0", "toy/1", "toy/oov", "nix"]
NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
MOST_BYTES_PER_BYTE = 400
LEAST_BYTES = 4 << 20

Records = list[tuple[Kind, tuple[bytes, ...]]]


def valid(folder: Path) -> tuple[bytes, Records]:
    """A recording with records of all kinds."""
    path = folder / "valid.rec"
    rows = {tag: np.arange(3, dtype=np.int32) for tag in TAGS[:2]}
    server = serve(f"unix:{folder}/a.sock", alignments=rows)
    try:
        with RecordingServer(server.target, path) as recorder, AlignerClient(recorder.target) as client:
            client.automata_partial(TAGS)
            client.alignments(TAGS[:2])
            scores = torch.zeros(2, 12, len(builder().inventory)).log_softmax(-1)
            client.error_signals(TAGS[:2], scores, torch.tensor([12, 1]))
            client.align(TAGS[:2], scores, torch.tensor([12, 12]))
    finally:
        server.stop()
    records = [(record.kind, record.parts) for record in read_records(path)]
    assert {kind for kind, _ in records} == set(Kind) - {Kind.END}
    return path.read_bytes(), records


def mutated(content: bytes, source: random.Random) -> bytes:
    """The bytes after a few random changes."""
    changed = bytearray(content)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        at = source.randrange(len(changed) + 1)
        kind = source.randrange(6)
        if kind == 0:
            del changed[at : at + source.choice((1, 1, 4, 50))]
        elif kind == 1:
            changed[at : at + 4] = struct.pack("<I", source.choice(NUMBERS))
        elif kind == 2:
            changed[at : at + 1] = bytes([source.randrange(256)])
        elif kind == 3:
            del changed[at:]
        elif kind == 4:
            first, last = sorted(source.randrange(len(changed) + 1) for _ in range(2))
            changed[at:at] = changed[first : min(last, first + 100)]
        elif changed:
            changed[at % len(changed)] ^= 1 << source.randrange(8)
    return bytes(changed)


def with_right_checksums(records: Records, source: random.Random, path: Path) -> None:
    """Writes a file that is whole, of records one of which was changed, left out, or stands twice."""
    changed = list(records)
    at = source.randrange(len(changed))
    kind, parts = changed[at]
    way = source.randrange(8)
    if way == 0:
        del changed[at]
    elif way == 1:
        changed.insert(source.randrange(len(changed) + 1), changed[at])
    elif way == 2:
        changed[at] = (source.choice(list(Kind)[:-1]), parts)
    elif way == 3:
        changed[at] = (kind, parts[: source.randrange(len(parts) + 1)])
    else:
        place = source.randrange(len(parts))
        changed[at] = (kind, (*parts[:place], mutated(parts[place], source), *parts[place + 1 :]))
    path.unlink(missing_ok=True)
    writer = RecordingWriter(path)
    for kind, parts in changed:
        writer.write(kind, parts)
    writer.close()


def check(path: Path, *, recover: bool) -> None:
    """Reads a recording, and asks it for all that it has.

    Raises:
        DataError: it is malformed.
    """
    recording = read_recording(path, recover=recover)
    backend = ReplayBackend(recording)
    items = list(recording.automata)
    answer = backend.automata(items)
    assert len(answer.automata) == answer.errors.count(None)
    assert len(answer.errors) == len(items)
    backend.alignments(list(recording.alignments))
    assert backend.capabilities is not None


def fuzz(turns: Iterable[object], seed: int) -> Counter[str]:
    """Run for so many turns; how often which outcome came.

    Raises:
        RuntimeError: anything but DataError came out, or more memory was taken than the bytes warrant; holds them.
    """
    source = random.Random(seed)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content, records = valid(folder)
        path = folder / "fuzz.rec"
        tracemalloc.start()
        try:
            for _ in turns:
                for way in ("bytes", "bytes, recovered", "messages"):
                    if way == "messages":
                        with_right_checksums(records, source, path)
                    else:
                        path.write_bytes(mutated(content, source))
                    outcomes[f"{way}: {_outcome(path, way == 'bytes, recovered', seed)}"] += 1
        finally:
            tracemalloc.stop()
    return outcomes


def _outcome(path: Path, recover: bool, seed: int) -> str:
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    outcome = "accepted"
    try:
        check(path, recover=recover)
    except DataError:
        outcome = "refused"
    except Exception as error:  # the very thing this program looks for
        raise RuntimeError(f"seed {seed}: {error!r} from {path.read_bytes()!r}") from error
    taken = tracemalloc.get_traced_memory()[1] - before
    if taken > LEAST_BYTES + MOST_BYTES_PER_BYTE * path.stat().st_size:
        raise RuntimeError(f"seed {seed}: took {taken} bytes to read {path.read_bytes()!r}")
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
