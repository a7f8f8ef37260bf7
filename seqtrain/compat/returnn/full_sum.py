"""Full sums as RETURNN's `fast_baum_welch` gives them: a sequence without a path has the loss 0 and no posteriors."""

from __future__ import annotations

from typing import NamedTuple

import torch

from seqtrain.fsa import FsaBatch
from seqtrain.functional import best_path, full_sum, posteriors

__all__ = ["BaumWelch", "baum_welch", "viterbi", "without_weights"]


class BaumWelch(NamedTuple):
    """losses (B,) -log of the full sum; posteriors (B, T, V), 0 past the end."""

    losses: torch.Tensor
    posteriors: torch.Tensor


def without_weights(graphs: FsaBatch) -> FsaBatch:
    """The automata with all weights 0, those of forbidden arcs among them: RETURNN's tdp_scale of 0."""
    return graphs.with_weights(torch.zeros_like(graphs.weights), torch.zeros_like(graphs.final_weights))


def baum_welch(scores: torch.Tensor, lengths: torch.Tensor, graphs: FsaBatch) -> BaumWelch:
    """Losses and posteriors of scores (B, T, V), without derivative."""
    scores = scores.detach()
    losses = -full_sum(scores, lengths, graphs, on_infeasible="mask")
    # Without frames there is no path to speak of there, accepted or not: 0 either way.
    return BaumWelch(losses, posteriors(scores, lengths, graphs, on_infeasible="mask"))


def viterbi(scores: torch.Tensor, lengths: torch.Tensor, graphs: FsaBatch) -> BaumWelch:
    """Losses of the best paths, +inf without one, and the paths as one-hot posteriors: label 0 without one."""
    scores = scores.detach()
    path = best_path(scores, lengths, graphs, on_infeasible="inf")
    losses = (-path.score).masked_fill((lengths == 0).to(scores.device), torch.inf)
    one_hot = torch.nn.functional.one_hot(path.labels.clamp(min=0), scores.shape[-1]).to(scores.dtype)
    inside = torch.arange(scores.shape[1]) < lengths.cpu()[:, None]
    return BaumWelch(losses, one_hot * inside.to(scores.device)[:, :, None])
