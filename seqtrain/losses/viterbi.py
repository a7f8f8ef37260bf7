"""Best-path ("Viterbi") training: the negative score of the best path of an utterance's automaton.

loss_b = -max_π Σ_t scores[t, label(π_t)] + weight(π_t), the maximum approximation of the full sum (`fast_baum_welch`).
The path is a constant of the derivative: the gradient with respect to the scores is -1 along it. The recursion:
`seqtrain.reference.best_path`.
"""

from __future__ import annotations

import torch

from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.functional import best_path
from seqtrain.infeasible import InfeasibleCount
from seqtrain.losses.frames import frames_of, widened
from seqtrain.losses.reduction import check_reduction, reduce
from seqtrain.scores import Packed, Scores

__all__ = ["ViterbiLoss", "viterbi_loss"]

_REDUCTIONS = ("none", "sum", "batch", "frames")


def viterbi_loss(
    scores: Scores,
    lengths: torch.Tensor,
    fsa: FsaBatch | Fsa,
    *,
    reduction: str = "none",
    on_infeasible: str = "raise",
    infeasible: InfeasibleCount | None = None,
) -> torch.Tensor:
    """Negative log score of each utterance's best path.

    Args:
        scores: (B, T, V) or `Packed` (ΣT, V), natural log, larger is better; normalized or not.
        lengths: (B,) int frames.
        fsa: a batch of B automata, or one `Fsa` for all. Their weights count, and get no gradient.
        reduction: "none", "sum", "batch" or "frames".
        on_infeasible, infeasible: as in `seqtrain.full_sum`.

    Returns:
        (B,) losses, or their reduction. Ties between paths go as in `seqtrain.best_path`.

    Raises:
        As `seqtrain.best_path`.
    """
    check_reduction(reduction, allowed=_REDUCTIONS)
    detached = (
        scores._replace(values=scores.values.detach()) if isinstance(scores, Packed) else scores.detach()
    )
    path = best_path(detached, lengths, fsa, on_infeasible=on_infeasible, infeasible=infeasible)
    rows, frames = frames_of(scores, lengths)
    labels = path.labels[:, : frames.limit][frames.inside()]
    along = widened(rows).gather(1, labels.clamp(min=0)[:, None])[:, 0]
    # Without a path there are no labels, and no gradient.
    sums = frames.spread(along.masked_fill(labels < 0, 0.0)).sum(dim=1)
    # The path's own score has the weights in it, and was summed in float64; the derivative is that of the sum.
    has_path = torch.ones(frames.batch, dtype=torch.bool, device=frames.device)
    if frames.limit:
        has_path = (path.labels[:, 0] >= 0) | (frames.lengths == 0).to(frames.device)
    value = torch.where(has_path, path.score, torch.zeros_like(path.score))
    losses = -(sums + (value - sums).detach())
    if on_infeasible == "inf":
        losses = losses.masked_fill(path.score == -torch.inf, torch.inf)
    return reduce(losses, reduction, lengths=frames.lengths)


class ViterbiLoss(torch.nn.Module):
    """`viterbi_loss` with its options kept; `infeasible` counts what a policy of "mask" or "inf" took out."""

    def __init__(self, *, reduction: str = "batch", on_infeasible: str = "raise") -> None:
        super().__init__()
        check_reduction(reduction, allowed=_REDUCTIONS)
        self.reduction = reduction
        self.on_infeasible = on_infeasible
        self.infeasible = InfeasibleCount()

    def forward(self, scores: Scores, lengths: torch.Tensor, fsa: FsaBatch | Fsa) -> torch.Tensor:
        return viterbi_loss(
            scores, lengths, fsa, reduction=self.reduction, on_infeasible=self.on_infeasible,
            infeasible=self.infeasible,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, on_infeasible={self.on_infeasible!r}"
