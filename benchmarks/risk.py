"""Exact expected risk over lattices and its gradients: `python -m benchmarks.risk`.

32 lattices of 20 000 arcs: in float64, as the kernel reads them, in float32, which is converted, and without gradients.
The peer is what one writes by hand in torch: the same sweep over states, level by
level, as index operations that autograd differentiates.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

import seqtrain.ops.risk  # noqa: F401  # registers the operator
from benchmarks.measure import cpu_times, median_ratio, peak_growth
from benchmarks.report import parser, show

BATCH, FRAMES, WIDTH, FAN = 32, 200, 20, 5
ARCS = FRAMES * WIDTH * FAN
TITLE = f"expected risk, {BATCH} lattices x {ARCS} arcs"


class Lattices:
    """Levels of WIDTH states; each state has FAN arcs to random states of the next level."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        states = FRAMES * WIDTH + 1  # the start leads to the first level, whose states lead on
        source = torch.arange(states - 1).repeat_interleave(FAN)
        level = source // WIDTH
        target = torch.randint(0, WIDTH, (BATCH, ARCS)) + (level + 1) * WIDTH
        # States of the last level are one: the end.
        self.source = source.expand(BATCH, -1)
        self.target = target.clamp(max=states - 1)
        arcs = torch.stack([self.source, self.target, torch.zeros_like(target)], dim=2).int().reshape(-1, 3)
        self.structure = (
            arcs.contiguous(), torch.arange(BATCH + 1) * ARCS,
            torch.full((BATCH,), states - 1, dtype=torch.int32), torch.arange(BATCH + 1),
            torch.zeros(BATCH, dtype=torch.int32), torch.full((BATCH,), states, dtype=torch.int32),
        )  # fmt: skip
        self.states = states
        self.weights = torch.randn(BATCH, ARCS, dtype=torch.float64)
        self.risks = torch.rand(BATCH, ARCS, dtype=torch.float64)

    def operator(self, dtype: torch.dtype, with_gradient: bool = True) -> list[torch.Tensor]:
        arcs, arc_offsets, finals, final_offsets, starts, sizes = self.structure
        weights, risks = (
            t.reshape(-1).to(dtype).requires_grad_(with_gradient) for t in (self.weights, self.risks)
        )
        zeros = torch.zeros(BATCH, dtype=dtype)
        risk = torch.ops.seqtrain.lattice_risk(
            arcs, weights, arc_offsets, finals, zeros, final_offsets, starts, sizes, risks, zeros, with_gradient,
            "raise", -1,
        )[0]  # fmt: skip
        if not with_gradient:
            return [risk]
        return [risk.detach(), *torch.autograd.grad(risk.sum(), (weights, risks))]

    def by_hand(self) -> list[torch.Tensor]:
        """One level a step, from the end: log-sum and expected risk of each state by scatter operations."""
        weights, risks = (t.clone().requires_grad_() for t in (self.weights, self.risks))
        ahead = torch.zeros(BATCH, 1, dtype=torch.float64)
        expected = torch.zeros(BATCH, 1, dtype=torch.float64)
        step = WIDTH * FAN
        for level in reversed(range(FRAMES)):
            arcs = slice(level * step, (level + 1) * step)
            target = self.target[:, arcs] - (level + 1) * WIDTH
            score = (weights[:, arcs] + ahead.gather(1, target)).view(BATCH, WIDTH, FAN)
            onward = (risks[:, arcs] + expected.gather(1, target)).view(BATCH, WIDTH, FAN)
            ahead = score.logsumexp(2)
            expected = (torch.softmax(score, 2) * onward).sum(2)
        return [expected[:, 0].detach(), *torch.autograd.grad(expected[:, 0].sum(), (weights, risks))]


def rows(threads: int, turns: int) -> list[dict[str, Any]]:
    """One row a contender."""
    torch.set_num_threads(threads)
    lattices = Lattices()
    contenders: dict[str, Callable[[], list[torch.Tensor]]] = {
        "seqtrain": lambda: lattices.operator(torch.float64),
        "seqtrain, float32": lambda: lattices.operator(torch.float32),
        "seqtrain, value alone": lambda: lattices.operator(torch.float64, False),
        "torch, by hand": lattices.by_hand,
    }
    times = cpu_times(contenders, turns)
    exact = lattices.by_hand()
    return [
        {
            "contender": name,
            "threads": threads,
            "CPU ms": median(times[name]),
            "least CPU ms": min(times[name]),
            "torch / this": median_ratio(times["torch, by hand"], times[name]),
            "largest error": max(
                float((ours - theirs.view_as(ours)).abs().max())
                for ours, theirs in zip(call(), exact, strict=False)
            ),
            "peak MB": peak_growth(call),
        }
        for name, call in contenders.items()
    ]


def main() -> None:
    """Prints the table."""
    arguments = parser(__doc__ or "").parse_args()
    found = [row for threads in arguments.threads for row in rows(threads, arguments.turns)]
    show(TITLE, found, as_json=arguments.json)


if __name__ == "__main__":
    main()
