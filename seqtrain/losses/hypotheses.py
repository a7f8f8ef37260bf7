"""Hypotheses of a batch for criteria over n-best lists or samples: distinct label sequences, how often each came."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch

from seqtrain.errors import ArgumentError, DeviceError, NonFiniteScoresError
from seqtrain.scores import Scores, check_scores, host_integers, split_scores

__all__ = ["Hypotheses", "padded_scores", "sample_ctc_hypotheses"]


class Hypotheses(NamedTuple):
    """Distinct label sequences of each utterance.

    Attributes:
        labels: (B, N, U) int64, padded with 0.
        lengths: (B, N) int64 labels of each, 0 past the last.
        counts: (B,) int64 how many there are of each utterance.
        drawn: (B, N) int64 how often each occurred among those that were given; 0 past the last.
    """

    labels: torch.Tensor
    lengths: torch.Tensor
    counts: torch.Tensor
    drawn: torch.Tensor

    @classmethod
    def from_lists(cls, sequences: Sequence[Sequence[Sequence[int]]]) -> Hypotheses:
        """From the sequences of each utterance, in order of first occurrence: such as `paths.by_utterance(…)`."""
        counted = [Counter(tuple(sequence) for sequence in utterance) for utterance in sequences]
        width = max(map(len, counted), default=0)
        longest = max((len(sequence) for c in counted for sequence in c), default=0)
        shape = (len(counted), max(width, 1))
        labels = torch.zeros((*shape, longest), dtype=torch.int64)
        lengths, drawn = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        for b, counter in enumerate(counted):
            for k, (sequence, times) in enumerate(counter.items()):
                labels[b, k, : len(sequence)] = torch.tensor(sequence, dtype=torch.int64)
                lengths[b, k], drawn[b, k] = len(sequence), times
        return cls(labels, lengths, torch.tensor([len(c) for c in counted], dtype=torch.int64), drawn)


def padded_scores(scores: Scores) -> torch.Tensor:
    """Scores as (B, T, V); packed ones padded with zeros, with gradient."""
    values, offsets = split_scores(scores)
    check_scores(values, offsets, cuda=True)
    if offsets is None:
        return values
    if offsets.shape[0] == 1:
        return values.reshape(0, 0, values.shape[-1])
    rows = [values[begin:end] for begin, end in itertools.pairwise(offsets.tolist())]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def sample_ctc_hypotheses(
    scores: Scores,
    lengths: torch.Tensor,
    count: int,
    *,
    blank: int = 0,
    label_loop: bool = True,
    generator: torch.Generator | None = None,
) -> Hypotheses:
    """Label sequences drawn from what CTC says of them: exact, since its frames are independent.

    A label is drawn for each frame with its softmax; equal neighbours become one (with `label_loop`), blanks go.

    Args:
        scores: (B, T, V) or `Packed`, logits or log-probabilities.
        lengths: (B,) int frames.
        count: draws of each utterance, >= 1.
        generator: None means torch's own; else one of the scores' device, where the draws are made.

    Raises:
        NonFiniteScoresError: a frame without a finite value, or with NaN or +inf. ArgumentError: `count` below 1.
        ShapeError, DtypeError. DeviceError: also where the generator is on another device.
    """
    if count < 1:
        raise ArgumentError(f"count must be at least 1, got {count}", argument="count")
    values = padded_scores(scores).detach()
    batch, frames, num_labels = values.shape
    lengths = host_integers(lengths, "lengths", (batch,))
    if generator is not None and generator.device.type != values.device.type:
        raise DeviceError(
            f"generator is on {generator.device}, the scores on {values.device}: draws are made where the scores are",
            argument="generator",
        )
    inside = (torch.arange(frames) < lengths[:, None]).to(values.device)
    wide = values.to(torch.float64).masked_fill(~inside[:, :, None], 0.0)
    best = wide.amax(dim=2)
    bad = (~torch.isfinite(best) | torch.isnan(wide).any(dim=2)).nonzero()
    if bad.numel():
        b, t = bad[0].tolist()
        raise NonFiniteScoresError(
            f"scores of utterance {b} hold NaN or +inf, or no value above -inf, at frame {t}",
            argument="scores", utterance=b, frame=t,
        )  # fmt: skip
    if batch * frames == 0:
        return Hypotheses.from_lists([[[]] * count for _ in range(batch)])
    probabilities = wide.softmax(dim=2).view(batch * frames, num_labels)
    drawn = torch.multinomial(probabilities, count, replacement=True, generator=generator)
    labels = drawn.view(batch, frames, count).transpose(1, 2)
    kept = (labels != blank) & inside[:, None]
    if label_loop:
        kept[:, :, 1:] &= labels[:, :, 1:] != labels[:, :, :-1]
    labels, kept = labels.cpu(), kept.cpu()
    return Hypotheses.from_lists(
        [[labels[b, k][kept[b, k]].tolist() for k in range(count)] for b in range(batch)]
    )
