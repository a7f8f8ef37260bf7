"""CTC from logits to their gradient, against torch: `python -m benchmarks.ctc`.

Cases: a small batch that fits the caches, and a large one (960 MB of logits) where memory decides. "reused" writes the
gradient into memory that the caller keeps, "fresh" into new memory, as torch does. The error is the largest absolute
one of a gradient against the float64 reference recursion, for standard normal logits and for logits of scale 60.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

import seqtrain as st
from benchmarks.measure import cpu_times, median_ratio, peak_growth
from benchmarks.report import parser, show
from seqtrain import reference


class Case(NamedTuple):
    """A batch's sizes."""

    batch: int
    frames: int
    labels: int
    targets: int

    def __str__(self) -> str:
        return f"B{self.batch} T{self.frames} V{self.labels} U{self.targets}"


SMALL, LARGE = Case(16, 500, 500, 60), Case(32, 1500, 5000, 200)
ACCURACY = Case(1, 1500, 500, 200)


class Batch:
    """Random logits and targets of a case."""

    def __init__(self, case: Case, *, scale: float = 1.0) -> None:
        torch.manual_seed(1)
        self.logits = (scale * torch.randn(case.batch, case.frames, case.labels)).requires_grad_()
        self.targets = torch.randint(1, case.labels, (case.batch, case.targets))
        self.lengths = torch.full((case.batch,), case.frames)
        self.target_lengths = torch.full((case.batch,), case.targets)

    def ours(self, gradient_out: torch.Tensor | None = None) -> torch.Tensor:
        loss = st.ctc_loss(
            self.logits,
            self.targets,
            self.lengths,
            self.target_lengths,
            normalize=True,
            gradient_out=gradient_out,
        )
        return torch.autograd.grad(loss.sum(), self.logits)[0]

    def torch(self) -> torch.Tensor:
        log_probs = self.logits.log_softmax(-1).transpose(0, 1)
        loss = torch.nn.functional.ctc_loss(
            log_probs, self.targets, self.lengths, self.target_lengths, reduction="sum"
        )
        return torch.autograd.grad(loss, self.logits)[0]

    def reference(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(T, V) float64 gradient of the first utterance."""
        logits = self.logits[0].detach().double().numpy()
        return reference.ctc_loss(logits, self.targets[0].numpy(), normalize=True).gradient


def errors(scale: float) -> dict[str, float]:
    """Largest gradient error of each contender."""
    batch = Batch(ACCURACY, scale=scale)
    exact = batch.reference()
    return {
        name: float(np.abs(gradient[0].double().numpy() - exact).max())
        for name, gradient in (("seqtrain", batch.ours()), ("torch", batch.torch()))
    }


def rows(case: Case, threads: int, turns: int) -> list[dict[str, Any]]:
    """One row a contender."""
    torch.set_num_threads(threads)
    batch = Batch(case)
    memory = torch.empty_like(batch.logits)
    contenders: dict[str, Callable[[], object]] = {
        "seqtrain, reused": lambda: batch.ours(memory),
        "seqtrain, fresh": batch.ours,
        "torch": batch.torch,
    }
    times = cpu_times(contenders, turns)
    return [
        {
            "case": str(case),
            "contender": name,
            "threads": threads,
            "CPU ms": median(times[name]),
            "torch / this": median_ratio(times["torch"], times[name]),
            "peak MB": peak_growth(call),
        }
        for name, call in contenders.items()
    ]


def main() -> None:
    """Prints the tables."""
    options = parser(__doc__ or "")
    options.add_argument("--small", action="store_true", help="leave the large case out")
    arguments = options.parse_args()
    found: list[dict[str, Any]] = []
    for threads in arguments.threads:
        found += rows(SMALL, threads, arguments.turns)
        if not arguments.small:
            found += rows(LARGE, threads, min(arguments.turns, 3))
    show("CTC, logits to gradient", found, as_json=arguments.json)
    torch.set_num_threads(1)
    accuracy = [
        {"scale of the logits": scale, "contender": name, "largest gradient error": error}
        for scale in (1.0, 60.0)
        for name, error in errors(scale).items()
    ]
    show(f"CTC, error against float64, {ACCURACY}", accuracy, as_json=arguments.json)


if __name__ == "__main__":
    main()
