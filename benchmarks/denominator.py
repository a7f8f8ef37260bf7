"""One denominator for a whole batch, value and gradient: `python -m benchmarks.denominator`.

The peer case has 3000 states, 30 000 arcs, V 3000, B 8, T 150; the large one (--large) 5000 states, 100 000 arcs,
V 6000, B 64, T 500. Labels stand on states and all states are final, as in LF-MMI. "copies" is the same case with a
copy of the graph for each utterance, by the general kernel. Where k2 is installed (the environment of `tests/k2/run`),
it takes these copies, too, exactly and in double. Growth is the slope of log time over log size, in arcs, frames and
utterances.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch

import seqtrain as st
from benchmarks.by_k2 import K2Sums
from benchmarks.measure import cpu_times, peak_growth
from benchmarks.report import parser, show
from seqtrain import reference
from seqtrain.fsa import Fsa, FsaBatch

PEER = {"states": 3000, "arcs": 30_000, "labels": 3000, "batch": 8, "frames": 150}
LARGE = {"states": 5000, "arcs": 100_000, "labels": 6000, "batch": 64, "frames": 500}
GROWTH = {
    "arcs": [dict(PEER, states=750 * n, arcs=7500 * n) for n in (1, 2, 4)],
    "frames": [dict(PEER, frames=75 * n) for n in (1, 2, 4)],
    "batch": [dict(PEER, batch=16 * n) for n in (1, 2, 4)],
}


def graph(states: int, arcs: int, labels: int) -> Fsa:
    """Random arcs, more of them into some states than into others, a loop on each."""
    random = np.random.default_rng(1)
    degree = arcs // states
    source = np.repeat(np.arange(states), degree)
    destination = (random.random(source.size) ** 1.7 * states).astype(np.int64)
    destination[::degree] = np.arange(states)
    label = random.integers(0, labels, size=states)[destination]
    return Fsa(
        np.column_stack((source, destination, label)),
        torch.full((source.size,), -float(np.log(degree))),
        num_states=states,
        final=(np.arange(states), np.zeros(states)),
    )


class Case:
    """A graph and a batch of random scores."""

    def __init__(self, *, states: int, arcs: int, labels: int, batch: int, frames: int) -> None:
        torch.manual_seed(1)
        self.fsa = graph(states, arcs, labels)
        self.scores = torch.randn(batch, frames, labels).requires_grad_()
        self.lengths = torch.full((batch,), frames)

    def run(
        self, fsa: Fsa | FsaBatch | None = None, *, leaky: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) sums and (B, T, V) posteriors."""
        if leaky:
            value = st.leaky_full_sum(self.scores, self.lengths, self.fsa)
        else:
            value = st.full_sum(self.scores, self.lengths, self.fsa if fsa is None else fsa)
        return value.detach(), torch.autograd.grad(value.sum(), self.scores)[0]

    def error(self) -> tuple[float, float]:
        """Relative error of the first value against float64, and the largest |row sum - 1|."""
        value, posteriors = self.run()
        exact = reference.full_sum(self.scores[0].detach().double().numpy(), self.fsa)
        return abs(float(value[0]) - exact) / abs(exact), float((posteriors.sum(-1) - 1).abs().max())


def rows(threads: int, turns: int, large: bool) -> list[dict[str, Any]]:
    """One row a contender."""
    torch.set_num_threads(threads)
    case = Case(**PEER)
    copies = FsaBatch.from_list([case.fsa] * PEER["batch"])
    contenders: dict[str, Callable[[], object]] = {
        "seqtrain, shared": case.run,
        "seqtrain, leaky": lambda: case.run(leaky=True),
        "seqtrain, copies": lambda: case.run(copies),
    }
    if importlib.util.find_spec("k2") is not None:
        contenders["k2, exact"] = K2Sums(case.scores, case.lengths, copies)
    times = cpu_times(contenders, turns)
    value, sums = case.error()
    found: list[dict[str, Any]] = [
        {
            "contender": name,
            "threads": threads,
            "CPU ms": median(times[name]),
            "wall s": None,
            "relative error": value if name == "seqtrain, shared" else None,
            "row sums off by": sums if name == "seqtrain, shared" else None,
            "peak MB": peak_growth(call),
        }
        for name, call in contenders.items()
    ]
    if large:
        case = Case(**LARGE)
        case.run()
        wall, cpu = time.perf_counter(), time.process_time()
        _, posteriors = case.run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        off = float((posteriors.sum(-1) - 1).abs().max())
        found.append(
            {"contender": "seqtrain, large", "threads": threads, "CPU ms": cpu * 1e3, "wall s": wall,
             "relative error": None, "row sums off by": off, "peak MB": None}
        )  # fmt: skip
    return found


def growth(turns: int) -> list[dict[str, Any]]:
    """Time at three sizes each, on one thread, and the power of the size that it grows with."""
    torch.set_num_threads(1)
    found = []
    for name, sizes in GROWTH.items():
        cases = [Case(**size) for size in sizes]
        times = cpu_times({str(i): case.run for i, case in enumerate(cases)}, turns)
        middle = [median(times[str(i)]) for i in range(len(cases))]
        size = np.log([case[name] for case in sizes])
        found.append(
            {
                "grows with": name,
                "sizes": " ".join(str(case[name]) for case in sizes),
                "CPU ms": " ".join(f"{value:.0f}" for value in middle),
                "power": float(np.polyfit(size, np.log(middle), 1)[0]),
            }
        )
    return found


def main() -> None:
    """Prints the tables."""
    options = parser(__doc__ or "")
    options.add_argument("--large", action="store_true", help="also the large case (3 GB)")
    arguments = options.parse_args()
    title = "one denominator for a batch, B{batch} T{frames} V{labels}, {states} states, {arcs} arcs".format(
        **PEER
    )
    found = [row for threads in arguments.threads for row in rows(threads, arguments.turns, arguments.large)]
    show(title, found, as_json=arguments.json)
    show("growth", growth(arguments.turns), as_json=arguments.json)


if __name__ == "__main__":
    main()
