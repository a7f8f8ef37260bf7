"""Greedy CTC decoding: the best label of each frame, repeats collapsed, blanks removed (Graves et al. 2006)."""

from __future__ import annotations

import torch
from torch import Tensor

from seqtrain.decoding.arguments import check_ctc_arguments

__all__ = ["ctc_greedy"]


def ctc_greedy(scores: Tensor, lengths: Tensor, *, blank: int = 0) -> list[list[int]]:
    """The labels of the best single path of each utterance, collapsed.

    Ties go to the smaller label.

    Args:
        scores: (B, T, V) per-frame label scores of any floating dtype, larger is better, normalized or not.
        lengths: (B,) frames of each utterance, any integer dtype.
        blank: the column of blank.

    Returns:
        One list of labels for each utterance, without blank.

    Raises:
        ShapeError: the shapes don't fit each other, or a length exceeds T.
        ArgumentError: `blank` is no column of `scores`.
    """
    check_ctc_arguments(scores, lengths, blank)
    batch, frames, _ = scores.shape
    if batch == 0 or frames == 0:
        return [[] for _ in range(batch)]
    best = scores.argmax(dim=2).cpu()
    kept = best != blank
    kept[:, 1:] &= best[:, 1:] != best[:, :-1]
    kept &= torch.arange(frames) < lengths.cpu()[:, None]
    return [best[b][kept[b]].tolist() for b in range(batch)]
