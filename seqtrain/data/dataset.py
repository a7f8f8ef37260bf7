"""A corpus in memory, and padded batches of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from seqtrain.data.augmentation import Augmentation
from seqtrain.data.seeds import generator
from seqtrain.data.utterance import Utterance
from seqtrain.errors import ArgumentError

__all__ = ["Batch", "Dataset"]


@dataclass(frozen=True)
class Batch:
    """Some utterances: `features` (B, T, F) padded with zeros, `lengths` (B,) int64, `tags` their ids."""

    tags: tuple[str, ...]
    features: torch.Tensor
    lengths: torch.Tensor


class Dataset:
    """Utterances with their features in memory (a day of speech at 40 bins takes 1.4 GB)."""

    def __init__(self, utterances: Sequence[Utterance], features: Sequence[torch.Tensor]) -> None:
        if len(utterances) != len(features):
            raise ArgumentError(
                f"{len(utterances)} utterances, but features of {len(features)}", argument="features"
            )
        self.utterances = tuple(utterances)
        self.features = tuple(features)

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def lengths(self) -> list[int]:
        """Frames of each utterance."""
        return [int(f.shape[0]) for f in self.features]

    def tags(self, indices: Sequence[int]) -> tuple[str, ...]:
        """Ids of some utterances."""
        return tuple(self.utterances[i].id for i in indices)

    def batch(
        self,
        indices: Sequence[int],
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        purpose: Sequence[int | str] = (),
    ) -> Batch:
        """A padded batch; the augmentation of an utterance depends on `seed`, `purpose` and its id alone."""
        rows = []
        for index in indices:
            features = self.features[index]
            if augmentation is not None:
                features = augmentation(features, generator(seed, *purpose, self.utterances[index].id))
            rows.append(features)
        return Batch(
            tags=self.tags(indices),
            features=pad_sequence(rows, batch_first=True),
            lengths=torch.tensor([len(row) for row in rows], dtype=torch.int64),
        )
