"""CTC's soft alignment: the probability of each label at each frame, given the targets.

γ[b, t, v] = Σ over the labelings π that collapse to the targets, π_t = v, of p(π) / Σ_π p(π). Graves et al. 2006,
equation 16 sums it. It is what the gradient of the loss pulls softmax towards.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seqtrain.functional import posteriors
from seqtrain.losses.ctc import ctc_automata
from seqtrain.scores import Packed, Scores, check_scores, split_scores

__all__ = ["ctc_soft_alignment"]


def ctc_soft_alignment(
    scores: Scores,
    targets: torch.Tensor,
    lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    *,
    blank: int = 0,
    label_loop: bool = True,
    on_infeasible: str = "raise",
    tags: Sequence[str] | None = None,
) -> torch.Tensor:
    """Posteriors of the labels given the targets; a constant, without derivative.

    Args:
        scores: (B, T, V) or `Packed` (ΣT, V); logits or log-probabilities: a constant per frame changes nothing.
        targets, lengths, target_lengths, blank, label_loop, on_infeasible, tags: as in `seqtrain.ctc_loss`.

    Returns:
        Like the scores, in their dtype: each frame sums to 1; 0 past the end and where there is no path.

    Raises:
        As `seqtrain.ctc_loss`.
    """
    values, offsets = split_scores(scores)
    check_scores(values, offsets, cuda=True)
    graphs = ctc_automata(
        values.shape[-1], targets, target_lengths, blank=blank, label_loop=label_loop, tags=tags
    )
    detached = Packed(values.detach(), scores.offsets) if isinstance(scores, Packed) else values.detach()
    return posteriors(detached, lengths, graphs, on_infeasible=on_infeasible)
