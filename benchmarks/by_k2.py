"""Sums over graphs by k2, with each step that a training needs: dense automata of the scores, intersection, totals."""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.fsa import FsaBatch, to_k2

__all__ = ["K2Sums"]


class K2Sums:
    """Scores (B, T, V) that need a gradient, lengths (B,), and a graph for each utterance; k2's are made here.

    On the device of the scores; lengths are in host memory, as k2 has it.
    """

    def __init__(self, scores: torch.Tensor, lengths: torch.Tensor, graphs: FsaBatch) -> None:
        import k2

        self._k2: Any = k2
        self._scores = scores
        self._graphs = to_k2(graphs).to(scores.device)
        starts = torch.zeros_like(lengths)
        self._segments = torch.stack((torch.arange(lengths.shape[0]), starts, lengths), dim=1).to(torch.int32)

    def __call__(self, *, beam: float = 1e9, double: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) sums and their (B, T, V) gradient, exact with the defaults; k2's own are a beam of 10 and floats."""
        dense = self._k2.DenseFsaVec(self._scores, self._segments)
        lattice = self._k2.intersect_dense(self._graphs, dense, output_beam=beam)
        value = lattice.get_tot_scores(use_double_scores=double, log_semiring=True)
        return value.detach(), torch.autograd.grad(value.sum(), self._scores)[0]
