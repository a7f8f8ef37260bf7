"""Batches of utterances of about the same length."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seqtrain.data.seeds import generator
from seqtrain.errors import ArgumentError

__all__ = ["DurationBatches"]


class DurationBatches:
    """Splits a corpus into batches of similar lengths whose padded size stays within `max_frames`.

    Each epoch has a composition and an order of its own, both a function of `seed` and the epoch's number
    alone: a resumed run sees the very batches that an uninterrupted one does.
    """

    def __init__(self, lengths: Sequence[int], *, max_frames: int, seed: int, jitter: float = 0.1) -> None:
        """
        Args:
            lengths: frames of each utterance.
            max_frames: bound on utterances · longest length in a batch; an utterance longer than that stands
                alone.
            seed: seed of the composition and the order.
            jitter: before sorting, lengths are multiplied by random factors in [1 - jitter, 1 + jitter], so
                that batches differ between epochs.

        Raises:
            ArgumentError: no utterances, a length below 1, `max_frames` below 1, or `jitter` outside [0, 1).
        """
        if not lengths:
            raise ArgumentError("there are no utterances to make batches of", argument="lengths")
        for index, length in enumerate(lengths):
            if length < 1:
                raise ArgumentError(f"utterance {index} has the length {length}", argument="lengths")
        if max_frames < 1:
            raise ArgumentError(f"max_frames is {max_frames}; it must be positive", argument="max_frames")
        if not 0 <= jitter < 1:
            raise ArgumentError(f"jitter is {jitter}; it must lie in [0, 1)", argument="jitter")
        self.lengths = tuple(lengths)
        self.max_frames = max_frames
        self.seed = seed
        self.jitter = jitter

    def epoch(self, epoch: int) -> list[list[int]]:
        """The batches of one epoch, in training order: indices into `lengths`, each exactly once."""
        random = generator(self.seed, epoch)
        factors = 1 + self.jitter * (
            2 * torch.rand(len(self.lengths), generator=random, dtype=torch.float64) - 1
        )
        order = torch.argsort(factors * torch.tensor(self.lengths, dtype=torch.float64), stable=True).tolist()
        batches: list[list[int]] = []
        batch: list[int] = []
        longest = 0
        for index in order:
            longest = max(longest, self.lengths[index])
            if batch and longest * (len(batch) + 1) > self.max_frames:
                batches.append(batch)
                batch, longest = [], self.lengths[index]
            batch.append(index)
        batches.append(batch)
        return [batches[i] for i in torch.randperm(len(batches), generator=random).tolist()]
