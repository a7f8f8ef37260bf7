"""What a stage of training maximizes or minimizes, as the loop sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from seqtrain.fsa import FsaBatch
from seqtrain.lexicon import AutomatonBuilder

__all__ = ["AutomatonSource", "BuilderSource", "Criterion", "CriterionValue"]


class AutomatonSource(Protocol):
    """Where automata come from: an aligner service, or anything like it."""

    def automata(self, tags: Sequence[str]) -> FsaBatch:
        """The automata of some utterances, in order."""

    def prefetch(self, batches: Sequence[Sequence[str]]) -> None:
        """Told which batches will be asked for, in order."""


class BuilderSource:
    """Automata built here and now, of the texts of utterances by their ids."""

    def __init__(self, builder: AutomatonBuilder, texts: Mapping[str, str]) -> None:
        self._builder = AutomatonBuilder(builder.lexicon, builder.topology, texts)

    def automata(self, tags: Sequence[str]) -> FsaBatch:
        """As `AutomatonBuilder.automata`."""
        return self._builder.automata(tags)

    def prefetch(self, batches: Sequence[Sequence[str]]) -> None:
        """Nothing is fetched."""


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
