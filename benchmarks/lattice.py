"""Lattices: intersection, total score, posteriors, paths: `python -m benchmarks.lattice`.

The intersection is that of 8 utterances of 150 frames with one graph of 3000 states and 30 000 arcs over 3000 labels,
with a beam; the sums and searches are on 32 lattices of 20 000 arcs. The peer of the sums is what one writes by hand in
torch: one logsumexp a level of states, for the whole batch, differentiated by autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

import seqtrain as st
from benchmarks.measure import cpu_times, median_ratio, peak_growth
from benchmarks.report import parser, show
from seqtrain import lattice as lt

BATCH, FRAMES, STATES, ARCS, LABELS, BEAM = 8, 150, 3000, 30_000, 3000, 16.0
LATTICES, LEVELS, WIDTH, FAN = 32, 200, 20, 5


class Search:
    """A random graph, and scores of which a few labels stand out in each frame, as a trained network's do."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        source = torch.arange(STATES).repeat_interleave(ARCS // STATES)
        arcs = torch.stack([source, torch.randint(STATES, (ARCS,)), torch.randint(LABELS, (ARCS,))], dim=1)
        self.graph = st.fsa.Fsa(arcs, torch.randn(ARCS), final=dict.fromkeys(range(STATES), 0.0))
        self.scores = (torch.randn(BATCH, FRAMES, LABELS) * 6).log_softmax(-1)
        self.lengths = torch.full((BATCH,), FRAMES)

    def __call__(self) -> lt.Lattice:
        return lt.intersect(self.scores, self.lengths, self.graph, beam=BEAM)


class Levels:
    """Lattices of LEVELS levels of WIDTH states, FAN arcs from each to random states of the next level."""

    def __init__(self) -> None:
        torch.manual_seed(2)
        states = (LEVELS + 1) * WIDTH  # state 0 is the start; the last level is final
        source = torch.arange(LEVELS * WIDTH).repeat_interleave(FAN)
        self.target = torch.randint(WIDTH, (LATTICES, source.shape[0]))
        target = self.target + (source // WIDTH + 1) * WIDTH
        arcs = torch.stack([source.expand_as(target), target, torch.randint(50, target.shape)], dim=2)
        self.weights = torch.randn(target.shape).requires_grad_()
        size = torch.arange(LATTICES + 1)
        self.lattice = lt.Lattice(
            arcs.reshape(-1, 3),
            self.weights.detach().reshape(-1),
            frames=(torch.arange(states) // WIDTH).repeat(LATTICES),
            final_states=torch.arange(LEVELS * WIDTH, states).repeat(LATTICES),
            final_weights=torch.zeros(LATTICES * WIDTH),
            arc_offsets=size * source.shape[0],
            state_offsets=size * states,
            final_offsets=size * WIDTH,
        )

    def total(self) -> torch.Tensor:
        with torch.no_grad():
            return lt.total_score(self.lattice)

    def gradient(self) -> torch.Tensor:
        weights = self.lattice.weights.detach().requires_grad_()
        value = lt.total_score(self.lattice.with_weights(weights))
        return torch.autograd.grad(value.sum(), weights)[0]

    def by_hand(self) -> torch.Tensor:
        """Backward over levels: the sum over a state's FAN arcs is one logsumexp."""
        weights = self.weights.view(LATTICES, LEVELS, WIDTH, FAN)
        target = self.target.view(LATTICES, LEVELS, WIDTH * FAN)
        ahead = torch.zeros(LATTICES, WIDTH)
        for level in reversed(range(LEVELS)):
            ahead = torch.logsumexp(
                weights[:, level] + ahead.gather(1, target[:, level]).view(LATTICES, WIDTH, FAN), dim=2
            )
        return torch.autograd.grad(ahead[:, 0].sum(), self.weights)[0].reshape(-1)


def rows(threads: int, turns: int) -> list[dict[str, Any]]:
    """One row a contender."""
    torch.set_num_threads(threads)
    search, levels = Search(), Levels()
    found = search()
    contenders: dict[str, Callable[[], object]] = {
        f"intersect, beam {BEAM:g}": search,
        "total score": levels.total,
        "total score + gradient": levels.gradient,
        "posteriors": lambda: lt.arc_posteriors(levels.lattice),
        "best path": lambda: lt.best_path(levels.lattice),
        "100 best": lambda: lt.nbest(levels.lattice, 100),
        "100 samples": lambda: lt.sample_paths(levels.lattice, 100, seed=1),
        "prune": lambda: lt.prune(levels.lattice, posterior=1e-3),
        "torch by hand, gradient": levels.by_hand,
    }
    times = cpu_times(contenders, turns)
    error = float((levels.gradient() - levels.by_hand()).abs().max())
    sizes = {f"intersect, beam {BEAM:g}": found.arcs.shape[0]}
    return [
        {
            "contender": name,
            "threads": threads,
            "arcs": sizes.get(name, levels.lattice.arcs.shape[0]),
            "CPU ms": median(times[name]),
            "torch / this": median_ratio(times["torch by hand, gradient"], times[name])
            if "gradient" in name
            else None,
            "difference to torch": error if name == "total score + gradient" else None,
            "peak MB": peak_growth(call),
        }
        for name, call in contenders.items()
    ]


def main() -> None:
    """Prints the table."""
    arguments = parser(__doc__ or "").parse_args()
    found = [row for threads in arguments.threads for row in rows(threads, arguments.turns)]
    title = (
        f"lattices: graph of {STATES} states x {ARCS} arcs, B{BATCH} T{FRAMES} V{LABELS}; "
        f"{LATTICES} lattices x {LEVELS * WIDTH * FAN} arcs"
    )
    show(title, found, as_json=arguments.json)


if __name__ == "__main__":
    main()
