"""The aligner service: automata a second, latency, scores up and signals down, what a training step waits for.

Server and clients are processes of their own on this machine; times are wall time, for a service is waited for. The
peer is the builder itself, in this process. "server's cache": the clients keep nothing, the server has had each segment
before; "uncached": neither keeps anything. Losses are those of the local engine, and of an echo, whose signals are the
scores themselves: what is left is the service's own time.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import parser, show
from seqtrain.aligner import AlignerClient
from seqtrain.lexicon import (
    AutomatonBuilder,
    HmmTopology,
    LabelInventory,
    read_lexicon,
    read_transcripts,
)
from sprint_bridge.backends.base import (
    BatchAlignments,
    BatchAutomata,
    BatchLosses,
    Capability,
    Orthography,
    Segment,
)
from sprint_bridge.backends.incapable import incapable
from sprint_bridge.memory import keep_freed_memory
from sprint_bridge.process import BridgeProcess
from sprint_bridge.server import AlignerServer

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


def _ask(target: str, seed: int, count: int, cached: bool, start: Any, results: Any) -> None:
    torch.set_num_threads(1)
    plan = batches(seed, count)
    with AlignerClient(target, timeout=120.0, cache_bytes=1 << 30 if cached else 0) as client:
        for batch in plan if cached else plan[:1]:
            client.automata(batch)
        start.wait(timeout=300)
        waits = []
        began, worked = time.monotonic(), time.process_time()
        for batch in plan:
            asked = time.monotonic()
            client.automata(batch)
            waits.append(time.monotonic() - asked)
        worked = time.process_time() - worked
    results.put((began, time.monotonic(), worked, waits))


def throughput(
    server: Server, contender: str, clients: int, count: int, *, client_cache: bool = False
) -> dict[str, Any]:
    """Automata a second of some clients at once, from first request to last answer; how long a batch takes; and the CPU
    time of client and server for it, which tells more than the others where something else runs as well.
    """
    # Imports take seconds: one process has them, and each client is a fork of it, made before it has used grpc.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["seqtrain.aligner", "seqtrain.losses", "sprint_bridge.process", "benchmarks.report"]
    )
    results = context.Queue()
    start = context.Barrier(clients + 1)
    workers = [
        context.Process(target=_ask, args=(server.target, seed, count, client_cache, start, results))
        for seed in range(clients)
    ]
    for worker in workers:
        worker.start()
    start.wait(timeout=300)
    before = server.cpu_seconds()
    found = [results.get(timeout=300) for _ in workers]
    worked = server.cpu_seconds() - before + sum(client for _, _, client, _ in found)
    for worker in workers:
        worker.join()
    # Clocks are the machine's: monotonic times of its processes can be compared.
    seconds = max(end for _, end, _, _ in found) - min(began for began, _, _, _ in found)
    waits = sorted(wait for _, _, _, times in found for wait in times)
    return {
        "contender": contender,
        "clients": clients,
        "automata/s": clients * count * BATCH / seconds,
        **_quantiles(waits),
        "CPU ms": 1e3 * worked / (clients * count),
    }


def _quantiles(waits: list[float]) -> dict[str, float]:
    return {"p50 ms": 1e3 * median(waits), "p99 ms": 1e3 * sorted(waits)[int(0.99 * (len(waits) - 1))]}


def in_process(folder: Path, count: int) -> dict[str, Any]:
    """The builder without a service."""
    builder = AutomatonBuilder(
        read_lexicon(folder / "lexicon.txt"),
        HmmTopology(states_per_phone=3),
        read_transcripts(folder / "text"),
    )
    builder.automata(batches(99, 1)[0])
    waits = []
    worked = time.process_time()
    for batch in batches(0, count):
        began = time.monotonic()
        builder.automata(batch)
        waits.append(time.monotonic() - began)
    worked = time.process_time() - worked
    return {
        "contender": "builder in this process",
        "clients": 1,
        "automata/s": count * BATCH / sum(waits),
        **_quantiles(waits),
        "CPU ms": 1e3 * worked / count,
    }


class Echo:
    """An engine that has no work: its signals are the scores."""

    name = "echo"
    capabilities = frozenset({Capability.LOSSES})
    config_digest = "echo"
    inventory = LabelInventory(tuple(f"l{number}" for number in range(4500)))

    def automata(self, items: Sequence[Segment | Orthography]) -> BatchAutomata:
        raise incapable(self.name, Capability.AUTOMATA_BY_SEGMENT)

    def alignments(self, segments: Sequence[str]) -> BatchAlignments:
        raise incapable(self.name, Capability.ALIGNMENTS)

    def align(self, segments: Sequence[str], scores: Sequence[NDArray[np.float32]]) -> BatchAlignments:
        raise incapable(self.name, Capability.FORCED_ALIGNMENT)

    def losses(self, segments: Sequence[str], log_posteriors: Sequence[NDArray[np.float32]]) -> BatchLosses:
        return BatchLosses(np.zeros(len(segments)), tuple(log_posteriors), tuple(None for _ in segments))

    def close(self) -> None:
        """Nothing was started."""


def _serve_echo(listen: str, connection: Any) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # as `sprint-bridge serve` does
    with AlignerServer(listen=listen, insecure_loopback=True) as server:
        server.serve(Echo())
        connection.send(server.target)
        connection.recv()


@contextmanager
def echo(listen: str) -> Iterator[str]:
    """The target of an echo in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_echo, args=(listen, theirs))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("end")
        process.join()


def losses(target: str, contender: str, turns: int, *, shared_memory: bool) -> dict[str, Any]:
    """Scores up, signals down."""
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
        "contender": contender,
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
        rows.append({"automata are": name, **_quantiles(waits)})
    return rows


@dataclass(frozen=True)
class Server:
    """A service in a process of its own."""

    target: str
    pid: int

    def cpu_seconds(self) -> float:
        """CPU time that the process has taken so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def service(config: dict[str, Any], listen: str | None) -> Iterator[Server]:
    """A service while the context is open."""
    with BridgeProcess({**config, "listen": listen}) as bridge:
        if bridge.pid is None:
            raise RuntimeError("the service has no process")
        yield Server(bridge.target, bridge.pid)


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
        kinds: list[tuple[str, str | None, str]] = [
            ("unix socket", None, f"unix:{folder}/echo/a.sock"),
            ("TCP", "127.0.0.1:0", "127.0.0.1:0"),
        ]
        for transport, listen, echo_listen in kinds:
            with service({**config, "cache_bytes": 0}, listen) as server:
                for clients in (1, 16):
                    rates.append(throughput(server, f"{transport}, uncached", clients, count))
                if listen is None:
                    waits += waiting(server.target, count)
                round_trips.append(
                    losses(server.target, f"{transport}, local", arguments.turns, shared_memory=False)
                )
            with service(config, listen) as server:
                with AlignerClient(server.target, timeout=120.0, cache_bytes=0) as client:
                    for begin in range(0, SEGMENTS, BATCH):
                        client.automata([f"seg{number}" for number in range(begin, begin + BATCH)])
                for clients in (1, 16):
                    rates.append(throughput(server, f"{transport}, server's cache", clients, 4 * count))
                if listen is None:
                    rates.append(
                        throughput(server, f"{transport}, client's cache", 1, 4 * count, client_cache=True)
                    )
            with echo(echo_listen) as target:
                for shared in (False, True) if listen is None else (False,):
                    name = f"{transport}, echo" + (", shared memory" if shared else "")
                    round_trips.append(losses(target, name, arguments.turns, shared_memory=shared))
    show(f"automata of {WORDS_A_SEGMENT} words, batches of {BATCH}", rates, as_json=arguments.json)
    show("waiting for automata in a training step", waits, as_json=arguments.json)
    show("losses and error signals", round_trips, as_json=arguments.json)
    # What that one measures is made of this module's corpus.
    from benchmarks.returnn_pipe import default_python, pipe_rows

    python = default_python()
    if python is not None:
        show("automata through a Sprint executable", pipe_rows(python, count), as_json=arguments.json)
    elif not arguments.json:
        print("RETURNN's pipe: not measured, tests/returnn_sprint/run makes the environment that it needs")


if __name__ == "__main__":
    main()
