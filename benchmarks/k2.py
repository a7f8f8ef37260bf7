"""Sums over graphs and their gradients against k2: `python -m benchmarks.k2`, in the environment of `tests/k2/run`.

"k2, exact" is `output_beam=1e9` and double scores, "k2, default" its beam of 10 and float scores: the same value only
where the beam drops nothing. All deliver the gradient with respect to the scores; "reused" writes it over that of an
earlier step, which the caller has kept. Graphs are made before, on both sides. Each case and number of threads runs in
a process of its own: k2 keeps memory and threads.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch

import seqtrain as st
from benchmarks.by_k2 import K2Sums
from benchmarks.measure import cpu_times, median_ratio, peak_growth
from benchmarks.report import parser, show
from seqtrain.fsa import Fsa, FsaBatch

CASES = {
    "CTC, V500": "ctc, B16 T500 U60 V500",
    "CTC, V5000": "ctc, B16 T500 U60 V5000",
    "numerator": "40 phones x 3 states, B16 T500 V1500",
    "denominator": "3000 states, 30000 arcs, V3000, B8 T150, one graph for all",
}
_SMALL = {"CTC, V500", "numerator"}


class Case:
    """Scores, our automata, and k2's."""

    def __init__(self, name: str, *, small: bool) -> None:
        torch.manual_seed(1)
        batch, frames = (8, 150) if name == "denominator" else (16, 500)
        if small:
            batch, frames = 2, 60
        self.shared: Fsa | None = None
        self.ctc: tuple[torch.Tensor, torch.Tensor] | None = None
        if name.startswith("CTC"):
            labels, tokens = int(name.partition("V")[2]), 10 if small else 60
            self.ctc = torch.randint(1, labels, (batch, tokens)), torch.full((batch,), tokens)
            graphs = st.fsa.ctc(*self.ctc)
        elif name == "numerator":
            labels, phones = 1500, 10 if small else 40
            graphs = st.fsa.hmm(
                torch.randint(0, labels // 3, (batch, phones)),
                torch.full((batch,), phones),
                states_per_label=3,
                transitions=st.fsa.Transitions.from_probabilities(loop=0.5),
            )
        else:
            labels = 3000
            self.shared = _denominator(3000, 30_000, labels)
            graphs = FsaBatch.from_list([self.shared] * batch)
        self.graphs = graphs
        self.lengths = torch.full((batch,), frames)
        self.scores = torch.randn(batch, frames, labels).log_softmax(dim=-1).requires_grad_()
        self.by_k2 = K2Sums(self.scores, self.lengths, graphs)

    def ours(self, memory: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        if self.ctc is not None:
            loss = st.ctc_loss(self.scores, self.ctc[0], self.lengths, self.ctc[1], gradient_out=memory)
            value = -loss
        else:
            graphs = self.graphs if self.shared is None else self.shared
            value = st.full_sum(self.scores, self.lengths, graphs, gradient_out=memory)
        return value.detach(), torch.autograd.grad(value.sum(), self.scores)[0]


def _denominator(states: int, arcs: int, labels: int) -> Fsa:
    """Random, with an arc into and one out of every state; every state is final."""
    generator = np.random.default_rng(1)
    ring = np.stack((np.arange(states), (np.arange(states) + 1) % states), axis=1)
    rest = generator.integers(0, states, (arcs - states, 2))
    ends = np.concatenate((ring, rest))
    table = np.column_stack((ends, generator.integers(0, labels, arcs)))
    table = table[np.argsort(table[:, 0], kind="stable")]
    weights = np.full(arcs, -np.log(arcs / states), dtype=np.float32)
    return Fsa(table, weights, num_states=states, final=dict.fromkeys(range(states), 0.0))


def rows(name: str, threads: int, turns: int, *, small: bool) -> list[dict[str, Any]]:
    """One row a contender."""
    torch.set_num_threads(threads)
    case = Case(name, small=small)
    memory = case.ours()[1]
    contenders: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]] = {
        "seqtrain": case.ours,
        "seqtrain, reused": lambda: case.ours(memory),
        "k2, default": lambda: case.by_k2(beam=10.0, double=False),
        "k2, exact": lambda: case.by_k2(beam=1e9, double=True),
    }
    peaks = {contender: peak_growth(call) for contender, call in contenders.items()}
    exact = contenders["k2, exact"]()
    errors = {contender: float((call()[1] - exact[1]).abs().max()) for contender, call in contenders.items()}
    times = cpu_times(contenders, turns)
    return [
        {
            "case": name,
            "contender": contender,
            "threads": threads,
            "CPU ms": median(times[contender]),
            "this / seqtrain": median_ratio(times[contender], times["seqtrain"]),
            "this / reused": median_ratio(times[contender], times["seqtrain, reused"]),
            "largest difference of gradients from k2, exact": errors[contender],
            "peak MB": peaks[contender],
        }
        for contender in contenders
    ]


def main() -> None:
    """Prints the table of all cases, each measured in a process of its own."""
    options = parser(__doc__ or "")
    options.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(CASES))
    options.add_argument("--small", action="store_true", help="small sizes of two cases, to see that it runs")
    options.add_argument("--rows-of", nargs=2, metavar=("CASE", "THREADS"), help="one case, as JSON rows")
    arguments = options.parse_args()
    if arguments.rows_of:
        name, threads = arguments.rows_of
        print(json.dumps(rows(name, int(threads), arguments.turns, small=arguments.small)))
        return
    found: list[dict[str, Any]] = []
    for name in arguments.cases:
        if arguments.small and name not in _SMALL:
            continue
        for threads in arguments.threads:
            command = [sys.executable, "-m", "benchmarks.k2", "--rows-of", name, str(threads)]
            command += ["--turns", str(arguments.turns), *(["--small"] if arguments.small else [])]
            made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found += json.loads(made.stdout.splitlines()[-1])
    show("; ".join(f"{name}: {CASES[name]}" for name in arguments.cases), found, as_json=arguments.json)


if __name__ == "__main__":
    main()
