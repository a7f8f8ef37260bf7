"""What an engine that has automata does with scores that a client sends: best paths, and the full-sum criterion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from seqtrain.errors import Infeasible, InfeasibleError, SeqtrainError, ShapeError
from seqtrain.functional import best_path, full_sum, posteriors
from seqtrain.scores import Packed
from sprint_bridge.backends.base import BatchAutomata, BatchLosses

__all__ = ["align_with_automata", "full_sum_losses"]


def _packed(
    answer: BatchAutomata, scores: Sequence[NDArray[np.float32]]
) -> tuple[Packed, list[int], list[SeqtrainError | None]]:
    """The scores of the items that have an automaton, the places of those items, and what is wrong with each item."""
    if len(scores) != len(answer.errors):
        raise ShapeError(f"{len(answer.errors)} segments, but scores of {len(scores)}", argument="scores")
    kept = [index for index, error in enumerate(answer.errors) if error is None]
    rows = [torch.from_numpy(np.ascontiguousarray(scores[index])) for index in kept]
    offsets = torch.tensor([0, *(row.shape[0] for row in rows)]).cumsum(0)
    labels = scores[0].shape[1] if scores else 1
    values = torch.cat(rows) if rows else torch.zeros(0, labels)
    return Packed(values, offsets), kept, list(answer.errors)


def _without_path(packed: Packed, answer: BatchAutomata, place: int, name: str | None) -> InfeasibleError:
    frames = int(packed.lengths[place])
    needed = int(answer.automata.min_length()[place])
    reason = "no path has that many frames, or every one has probability zero"
    return InfeasibleError([Infeasible(place, name, frames, needed if needed > frames else None, reason)])


def align_with_automata(
    answer: BatchAutomata, scores: Sequence[NDArray[np.float32]]
) -> tuple[tuple[NDArray[np.int32], ...], tuple[SeqtrainError | None, ...]]:
    """The label of each frame on the best path of each item, and what is wrong with the items that have none."""
    packed, kept, errors = _packed(answer, scores)
    labels = [np.zeros(0, dtype=np.int32)] * len(errors)
    path = best_path(packed, packed.lengths, answer.automata, on_infeasible="inf")
    for place, index in enumerate(kept):
        frames = int(packed.lengths[place])
        if path.score[place] == -torch.inf:
            errors[index] = _without_path(packed, answer, place, None)
        else:
            labels[index] = path.labels[place, :frames].numpy().astype(np.int32)
    return tuple(labels), tuple(errors)


def full_sum_losses(answer: BatchAutomata, log_posteriors: Sequence[NDArray[np.float32]]) -> BatchLosses:
    """-log of the full sum over each item's automaton, and its gradient before the softmax: y - posteriors."""
    packed, kept, errors = _packed(answer, log_posteriors)
    losses = np.full(len(errors), np.inf)
    signals = [np.zeros_like(rows, dtype=np.float32) for rows in log_posteriors]
    sums = full_sum(packed, packed.lengths, answer.automata, on_infeasible="inf")
    occupancies = posteriors(packed, packed.lengths, answer.automata, on_infeasible="mask")
    for place, index in enumerate(kept):
        if sums[place] == -torch.inf:
            errors[index] = _without_path(packed, answer, place, None)
            continue
        rows = slice(int(packed.offsets[place]), int(packed.offsets[place + 1]))
        losses[index] = -float(sums[place])
        signals[index] = (packed.values[rows].exp() - occupancies[rows]).numpy()
    return BatchLosses(losses, tuple(signals), tuple(errors))
