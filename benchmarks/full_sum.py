"""Full sum over HMM automata and its gradient: `python -m benchmarks.full_sum`.

The case is a numerator of hybrid training: 40 phones of 3 states with loops, one automaton an utterance. "compact"
delivers posteriors for the labels in use alone, "reused" writes the dense gradient into memory that the caller keeps,
"fresh" into new memory. The peer is the log-domain recursion that one writes by hand in torch: one logsumexp over
(loop, forward) a frame for the whole batch, differentiated by autograd.

"Hessian-vector" is a gradient with `create_graph` and its derivative in a direction; its column says what it costs
beside the fresh dense gradient. Its error is that of the product, in double against the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch

import seqtrain as st
from benchmarks.measure import cpu_times, median_ratio, peak_growth
from benchmarks.report import parser, show
from seqtrain import reference

BATCH, FRAMES, PHONES, STATES_PER_PHONE, LABELS = 16, 500, 40, 3, 1500
TITLE = f"full sum, {PHONES} phones x {STATES_PER_PHONE} states, B{BATCH} T{{frames}} V{LABELS}"


class Batch:
    """Random scores and left-to-right HMMs."""

    def __init__(self, frames: int) -> None:
        torch.manual_seed(1)
        self.frames = frames
        self.scores = torch.randn(BATCH, frames, LABELS).requires_grad_()
        self.direction = torch.randn(BATCH, frames, LABELS)
        self.lengths = torch.full((BATCH,), frames)
        self.phones = torch.randint(0, LABELS // STATES_PER_PHONE, (BATCH, PHONES))
        self.fsa = st.fsa.hmm(
            self.phones,
            torch.full((BATCH,), PHONES),
            states_per_label=STATES_PER_PHONE,
            transitions=st.fsa.Transitions.from_probabilities(loop=0.5),
        )

    def dense(self, gradient_out: torch.Tensor | None = None) -> torch.Tensor:
        value = st.full_sum(self.scores, self.lengths, self.fsa, gradient_out=gradient_out)
        return torch.autograd.grad(value.sum(), self.scores)[0]

    def compact(self) -> st.CompactPosteriors:
        return st.compact_posteriors(self.scores, self.lengths, self.fsa)

    def by_hand(self) -> torch.Tensor:
        """The same sum as a loop of torch operations: state s is left by its loop or to s + 1, each with 1/2."""
        labels = (self.phones[:, :, None] * STATES_PER_PHONE + torch.arange(STATES_PER_PHONE)).flatten(1)
        emissions = self.scores.gather(2, labels[:, None, :].expand(-1, self.frames, -1))
        impossible = torch.full((BATCH, 1), -1e30)
        half = float(np.log(0.5))
        alpha = torch.cat([emissions[:, 0, :1], impossible.expand(-1, labels.shape[1] - 1)], dim=1)
        for t in range(1, self.frames):
            entered = torch.cat([impossible, alpha[:, :-1]], dim=1)
            alpha = torch.logaddexp(alpha + half, entered + half) + emissions[:, t]
        return torch.autograd.grad((alpha[:, -1] + half).sum(), self.scores)[0]

    def hessian_vector(self) -> torch.Tensor:
        """The derivative of the summed values' gradient in the direction of `self.direction`."""
        value = st.full_sum(self.scores, self.lengths, self.fsa)
        (gradient,) = torch.autograd.grad(value.sum(), self.scores, create_graph=True)
        return torch.autograd.grad(gradient, self.scores, self.direction)[0]

    def errors(self) -> dict[str, float]:
        """Largest gradient error against the float64 reference, first utterance."""
        single = [tensor[0].detach().double().numpy() for tensor in (self.scores, self.direction)]
        product = reference.full_sum_tangents(single[0], self.fsa[0], tangent_scores=single[1]).scores
        exact = reference.full_sum_gradients(self.scores[0].detach().double().numpy(), self.fsa[0]).scores
        compact = self.compact()
        used = compact.labels[0] >= 0
        spread = torch.zeros(self.frames, LABELS)
        spread.index_add_(1, compact.labels[0, used], compact.occupancies[0][:, used])
        found = {
            name: float(np.abs(gradient.detach().double().numpy() - exact).max())
            for name, gradient in (
                ("seqtrain, compact", spread),
                ("seqtrain, reused", self.dense(torch.empty_like(self.scores))[0]),
                ("seqtrain, fresh", self.dense()[0]),
                ("torch, by hand", self.by_hand()[0]),
            )
        }
        difference = self.hessian_vector()[0].double().numpy() - product
        return found | {"seqtrain, Hessian-vector": float(np.abs(difference).max())}


def rows(threads: int, turns: int, frames: int) -> list[dict[str, Any]]:
    """One row a contender."""
    torch.set_num_threads(threads)
    batch = Batch(frames)
    memory = torch.empty_like(batch.scores)
    contenders: dict[str, Callable[[], object]] = {
        "seqtrain, compact": batch.compact,
        "seqtrain, reused": lambda: batch.dense(memory),
        "seqtrain, fresh": batch.dense,
        "seqtrain, Hessian-vector": batch.hessian_vector,
        "torch, by hand": batch.by_hand,
    }
    times = cpu_times(contenders, turns)
    errors = batch.errors()
    return [
        {
            "contender": name,
            "threads": threads,
            "CPU ms": median(times[name]),
            "this / gradient": median_ratio(times[name], times["seqtrain, fresh"]),
            "torch / this": median_ratio(times["torch, by hand"], times[name]),
            "largest gradient error": errors[name],
            "peak MB": peak_growth(call),
        }
        for name, call in contenders.items()
    ]


def main() -> None:
    """Prints the table."""
    options = parser(__doc__ or "")
    options.add_argument(
        "--frames", type=int, default=FRAMES, help="of each utterance (default: %(default)s)"
    )
    arguments = options.parse_args()
    found = [row for threads in arguments.threads for row in rows(threads, arguments.turns, arguments.frames)]
    show(TITLE.format(frames=arguments.frames), found, as_json=arguments.json)


if __name__ == "__main__":
    main()
