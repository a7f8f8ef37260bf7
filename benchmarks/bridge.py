"""The aligner service: automata a second, latency, scores up and signals down, what a training step waits for.

Server and clients are processes of their own on this machine; times are wall time, for a service is waited for. The
peer is the builder itself, in this process.
"""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.report import parser, show
from seqtrain.aligner import AlignerClient
from seqtrain.lexicon import AutomatonBuilder, HmmTopology, read_lexicon, read_transcripts
from sprint_bridge.process import BridgeProcess

BATCH = 32
WORDS, PHONES, SEGMENTS, WORDS_A_SEGMENT = 2000, 40, 4096, 10
MEGABYTES = 72


def write_corpus(folder: Path) -> dict[str, Any]:
    """A corpus of random sentences, and the configuration of its service."""
    rng = random.Random(1)
    phones = [f"P{number}" for number in range(PHONES)]
    words = [f"w{number}" for number in range(WORDS)]
    lines = [f"{word} {' '.join(rng.choices(phones, k=rng.randint(2, 8)))}" for word in words]
    (folder / "lexicon.txt").write_text("\n".join(lines) + "\n")
    sentences = [
        f"seg{number} {' '.join(rng.choices(words, k=WORDS_A_SEGMENT))}" for number in range(SEGMENTS)
    ]
    (folder / "text").write_text("\n".join(sentences) + "\n")
    return {
        "insecure_loopback": True,
        "backend": {
            "lexicon": str(folder / "lexicon.txt"),
            "transcripts": str(folder / "text"),
            "topology": {"states_per_phone": 3, "phone": {"loop_probability": 0.6}},
        },
    }


def batches(seed: int, count: int) -> list[list[str]]:
    """Batches of different segments."""
    rng = random.Random(seed)
    return [[f"seg{number}" for number in rng.sample(range(SEGMENTS), BATCH)] for _ in range(count)]


def _ask(target: str, seed: int, count: int, cached: bool, results: Any) -> None:
    torch.set_num_threads(1)
    plan = batches(seed, count)
    with AlignerClient(target, timeout=60.0, cache_bytes=1 << 30 if cached else 0) as client:
        client.automata(plan[0])
        if cached:
            for batch in plan:
                client.automata(batch)
        times = []
        for batch in plan:
            began = time.monotonic()
            client.automata(batch)
            times.append(time.monotonic() - began)
    results.put(times)


def throughput(target: str, transport: str, clients: int, count: int, *, cached: bool) -> dict[str, Any]:
    """Automata a second of some clients at once, and how long a batch takes."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [
        context.Process(target=_ask, args=(target, seed, count, cached, results)) for seed in range(clients)
    ]
    for worker in workers:
        worker.start()
    times = [results.get(timeout=300) for _ in workers]
    for worker in workers:
        worker.join()
    # Each client's own time: processes take seconds to start, which is nobody's wait for automata.
    longest = max(sum(found) for found in times)
    waits = sorted(wait for found in times for wait in found)
    return {
        "contender": f"{transport}, {'client cache' if cached else 'no cache'}",
        "clients": clients,
        "automata/s": clients * count * BATCH / longest,
        "p50 ms": 1e3 * median(waits),
        "p99 ms": 1e3 * waits[int(0.99 * (len(waits) - 1))],
    }


def in_process(folder: Path, count: int) -> dict[str, Any]:
    """The builder without a service."""
    builder = AutomatonBuilder(
        read_lexicon(folder / "lexicon.txt"),
        HmmTopology(states_per_phone=3),
        read_transcripts(folder / "text"),
    )
    builder.automata(batches(99, 1)[0])
    waits = []
    for batch in batches(0, count):
        began = time.monotonic()
        builder.automata(batch)
        waits.append(time.monotonic() - began)
    waits.sort()
    return {
        "contender": "builder in this process",
        "clients": 1,
        "automata/s": count * BATCH / sum(waits),
        "p50 ms": 1e3 * median(waits),
        "p99 ms": 1e3 * waits[int(0.99 * (len(waits) - 1))],
    }


def losses(target: str, transport: str, turns: int, *, shared_memory: bool) -> dict[str, Any]:
    """Scores up, signals down. The engine's own work is in it, and shown beside."""
    with AlignerClient(target, timeout=120.0, shared_memory=shared_memory) as client:
        labels = len(client.inventory())
        names = [f"seg{number}" for number in range(16)]
        frames = MEGABYTES * 1_000_000 // (4 * labels * len(names))
        log_posteriors = torch.randn(len(names), frames, labels).log_softmax(-1)
        lengths = torch.full((len(names),), frames)
        waits = []
        for turn in range(turns + 1):
            began = time.monotonic()
            client.error_signals(names, log_posteriors, lengths)
            if turn:
                waits.append(time.monotonic() - began)
    return {
        "contender": transport,
        "MB each way": MEGABYTES,
        "median s": median(waits),
        "least s": min(waits),
    }


def waiting(target: str, count: int) -> list[dict[str, Any]]:
    """What a training step waits for automata: asked for at the step, and prefetched during the step before."""
    step = 0.05
    rows = []
    for name, ahead in (("asked for at the step", False), ("prefetched", True)):
        plan = batches(7 + ahead, count)
        with AlignerClient(target, timeout=60.0, cache_bytes=0) as client:
            client.automata(batches(5, 1)[0])
            if ahead:
                client.prefetch(plan)
                time.sleep(step)
            waits = []
            for batch in plan:
                began = time.monotonic()
                client.automata(batch)
                waits.append(time.monotonic() - began)
                time.sleep(step)  # the model computes
        waits.sort()
        rows.append(
            {
                "automata are": name,
                "p50 ms": 1e3 * median(waits),
                "p99 ms": 1e3 * waits[int(0.99 * (len(waits) - 1))],
            }
        )
    return rows


@contextmanager
def service(config: dict[str, Any], listen: str | None) -> Iterator[str]:
    """A service in a process of its own."""
    with BridgeProcess({**config, "listen": listen}) as bridge:
        yield bridge.target


def main() -> None:
    """Prints the tables."""
    arguments = parser(__doc__ or "").parse_args()
    count = 8 * arguments.turns
    rates: list[dict[str, Any]] = []
    round_trips: list[dict[str, Any]] = []
    waits: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_corpus(folder)
        torch.set_num_threads(1)
        rates.append(in_process(folder, count))
        kinds: list[tuple[str, str | None]] = [("unix socket", None), ("TCP", "127.0.0.1:0")]
        for transport, listen in kinds:
            with service(config, listen) as target:
                for clients in (1, 16):
                    rates.append(throughput(target, transport, clients, count, cached=False))
                if listen is None:
                    rates.append(throughput(target, transport, 1, count, cached=True))
                    waits += waiting(target, count)
                    round_trips.append(
                        losses(target, f"{transport}, shared memory", arguments.turns, shared_memory=True)
                    )
                round_trips.append(losses(target, transport, arguments.turns, shared_memory=False))
    show(f"automata of {WORDS_A_SEGMENT} words, batches of {BATCH}", rates, as_json=arguments.json)
    show("waiting for automata in a training step", waits, as_json=arguments.json)
    show("losses and error signals", round_trips, as_json=arguments.json)


if __name__ == "__main__":
    main()
