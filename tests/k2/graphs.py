"""Graphs and scores that k2's float32 holds exactly: all numbers are multiples of 1/1024 and small.

k2 adds a graph's score and the network's in float32 before it sums paths in double; on these numbers that sum is exact,
and what differs in the comparison is the recursion alone.
"""

from __future__ import annotations

from typing import Any

import k2
import torch

from seqtrain import fsa

__all__ = ["FRAMES", "LENGTHS", "NUM_LABELS", "dense", "graphs", "lattice", "quantized"]

NUM_LABELS = 7
FRAMES = 12
# k2 wants them not to rise.
LENGTHS = torch.tensor([12, 10, 10, 7])


def quantized(*shape: int, seed: int, scale: float = 2.0) -> torch.Tensor:
    """float32 normal numbers, rounded to multiples of 1/1024."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * scale * 1024).round() / 1024


def graphs(seed: int = 0) -> fsa.FsaBatch:
    """CTC, HMM, an ergodic automaton and one with loops, parallel arcs and several final states, with weights."""
    targets = torch.tensor([[3, 3, 5, 1], [2, 4, 6, 0]])
    ctc = fsa.ctc(targets[:1], torch.tensor([4]))[0]
    hmm = fsa.hmm(targets[1:], torch.tensor([3]))[0]
    ergodic = fsa.Fsa(
        [[s, d, d + 1] for s in range(4) for d in range(4)], final=dict.fromkeys(range(4), -0.5)
    )
    mixed = fsa.Fsa(
        [[0, 1, 1], [0, 1, 2], [0, 0, 0], [1, 2, 3], [1, 1, 3], [1, 3, 6], [2, 0, 5], [2, 3, 6], [3, 3, 4]],
        final={1: -1.0, 3: 0.25},
    )
    batch = fsa.FsaBatch.from_list([ctc, hmm, ergodic, mixed])
    return batch.with_weights(quantized(batch.arcs.shape[0], seed=seed, scale=0.5))


def dense(scores: torch.Tensor, lengths: torch.Tensor = LENGTHS) -> Any:
    """k2's dense automata of float32 scores (B, T, V)."""
    segments = torch.stack(
        (torch.arange(len(lengths)), torch.zeros(len(lengths), dtype=torch.int64), lengths), dim=1
    )
    return k2.DenseFsaVec(scores, segments.to(torch.int32))


def lattice(graph: Any, scores: torch.Tensor, lengths: torch.Tensor = LENGTHS) -> Any:
    """k2's exact intersection; its attribute `frame` is each arc's frame in the utterance."""
    return k2.intersect_dense(graph, dense(scores, lengths), output_beam=1e9, frame_idx_name="frame")
