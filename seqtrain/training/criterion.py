"""What a stage of training maximizes or minimizes, as the loop sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

__all__ = ["Criterion", "CriterionValue"]


@dataclass(frozen=True)
class CriterionValue:
    """`loss` is the scalar to be minimized; `metrics` are numbers for the log, averaged over the steps
    between lines."""

    loss: torch.Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)


class Criterion(ABC):
    """A training criterion with whatever it carries along (a prior, a connection)."""

    @abstractmethod
    def __call__(self, tags: Sequence[str], logits: torch.Tensor, lengths: torch.Tensor) -> CriterionValue:
        """The loss of a batch: utterances `tags`, logits (B, T, V) unnormalized, `lengths` (B,)."""

    # Most criteria fetch nothing and carry nothing: the empty methods are meant.
    def prefetch(self, batches: Sequence[Sequence[str]]) -> None:  # noqa: B027  # optional: most have nothing to do here
        """Told which batches come next, in order, so that what they need can be fetched meanwhile."""

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors that a checkpoint must hold."""
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:  # noqa: B027  # optional: most have nothing to do here
        """Takes back what `state` gave."""
