"""A trained network's scores of a whole set of utterances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from seqtrain.data import Dataset
from seqtrain.errors import ArgumentError

__all__ = ["ScoredBatch", "ScoredSet", "score_set"]


@dataclass(frozen=True)
class ScoredBatch:
    """Some utterances: `scores` (B, T, V) float32 natural log, padded; `lengths` (B,); `tags` their ids."""

    tags: tuple[str, ...]
    scores: torch.Tensor
    lengths: torch.Tensor


class ScoredSet:
    """The frame scores of a set, one tensor (T, V) for each utterance, in the set's order."""

    def __init__(self, tags: tuple[str, ...], scores: tuple[torch.Tensor, ...]) -> None:
        if len(tags) != len(scores):
            raise ArgumentError(f"{len(tags)} tags, but scores of {len(scores)}", argument="scores")
        self.tags = tags
        self.scores = scores

    def minus(self, vector: torch.Tensor) -> ScoredSet:
        """The scores less a vector (V,), in every frame: a · log prior, say."""
        return ScoredSet(self.tags, tuple(scores - vector for scores in self.scores))

    def subset(self, tags: Sequence[str]) -> ScoredSet:
        """The utterances named, in that order."""
        index = {tag: i for i, tag in enumerate(self.tags)}
        return ScoredSet(tuple(tags), tuple(self.scores[index[tag]] for tag in tags))

    def batches(self, *, frames: int = 4000) -> Iterator[ScoredBatch]:
        """Batches in the set's order, each within `frames` padded frames where it has more than one
        utterance."""
        start, longest = 0, 0
        for end, scores in enumerate(self.scores):
            longest = max(longest, len(scores))
            if end > start and longest * (end - start + 1) > frames:
                yield self._batch(start, end)
                start, longest = end, len(scores)
        if start < len(self.scores):
            yield self._batch(start, len(self.scores))

    def _batch(self, start: int, end: int) -> ScoredBatch:
        rows = self.scores[start:end]
        return ScoredBatch(
            tags=self.tags[start:end],
            scores=pad_sequence(list(rows), batch_first=True),
            lengths=torch.tensor([len(row) for row in rows], dtype=torch.int64),
        )


def score_set(model: nn.Module, dataset: Dataset, *, frames: int = 6000) -> ScoredSet:
    """log p(label | x) (T, V) float32 of every utterance, by `model` in evaluation mode.

    Utterances of similar length are computed together, `frames` padded input frames at a time; the mode that
    the model was in is restored.
    """
    lengths = dataset.lengths
    order = sorted(range(len(dataset)), key=lambda index: lengths[index])
    found: dict[int, torch.Tensor] = {}
    training = model.training
    model.eval()
    with torch.no_grad():
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and lengths[order[end]] * (end - start + 1) <= frames:
                end += 1
            indices = order[start:end]
            batch = dataset.batch(indices)
            logits, output_lengths = model(batch.features, batch.lengths)
            log_probs = logits.float().log_softmax(dim=-1)
            for row, index in enumerate(indices):
                found[index] = log_probs[row, : int(output_lengths[row])].clone()
            start = end
    model.train(training)
    return ScoredSet(dataset.tags(range(len(dataset))), tuple(found[i] for i in range(len(dataset))))
