"""What the service asks of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import SeqtrainError
from seqtrain.fsa import FsaBatch
from seqtrain.lexicon import LabelInventory

if TYPE_CHECKING:
    from sprint_bridge.workers.supervisor import PoolCounters

__all__ = [
    "Backend",
    "BatchAlignments",
    "BatchAutomata",
    "BatchLosses",
    "Capability",
    "Orthography",
    "Pooled",
    "Segment",
]


class Capability(Enum):
    """What an engine can do."""

    AUTOMATA_BY_SEGMENT = "automata_by_segment"
    AUTOMATA_BY_ORTHOGRAPHY = "automata_by_orthography"
    ALIGNMENTS = "alignments"
    FORCED_ALIGNMENT = "forced_alignment"
    LOSSES = "losses"


@dataclass(frozen=True)
class Segment:
    """An item asked for by the full name of its segment."""

    name: str


@dataclass(frozen=True)
class Orthography:
    """An item asked for by its words, separated by white space."""

    text: str


@dataclass(frozen=True)
class BatchAutomata:
    """The automata of those items that have one, in order; `errors` has for each item None or what is
    wrong.
    """

    automata: FsaBatch
    errors: tuple[SeqtrainError | None, ...]


@dataclass(frozen=True)
class BatchAlignments:
    """For each item its labels (T,) int32, none where `errors` says what is wrong."""

    labels: tuple[NDArray[np.int32], ...]
    errors: tuple[SeqtrainError | None, ...]


@dataclass(frozen=True)
class BatchLosses:
    """For each item its loss and its error signal.

    Attributes:
        losses: (B,) float64; +inf where `errors` says what is wrong.
        signals: B arrays (T, V) float32, ∂ loss / ∂ logits, where log-posteriors = log softmax(logits); zeros where
            `errors` says what is wrong.
        errors: for each item None or what is wrong.
    """

    losses: NDArray[np.float64]
    signals: tuple[NDArray[np.float32], ...]
    errors: tuple[SeqtrainError | None, ...]


class Backend(Protocol):
    """An engine that is loaded. It is called from several threads at once.

    What is wrong with one item is no reason to fail the others: it is said in `errors`, by OutOfVocabularyError,
    UnknownSegmentError, InfeasibleError, or the kinds of EngineError.
    """

    @property
    def name(self) -> str:
        """Which engine this is."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do."""

    @property
    def inventory(self) -> LabelInventory:
        """Its labels."""

    @property
    def config_digest(self) -> str:
        """Digest of all that decides its answers."""

    def automata(self, items: Sequence[Segment | Orthography]) -> BatchAutomata:
        """The automata of a batch. What is wrong with one item is no reason to fail the others."""

    def alignments(self, segments: Sequence[str]) -> BatchAlignments:
        """Alignments of a batch; called only with the capability for it."""

    def align(self, segments: Sequence[str], scores: Sequence[NDArray[np.float32]]) -> BatchAlignments:
        """The best path of each segment's automaton through its scores (T, V), natural log, larger is better; called
        only with the capability for it.
        """

    def losses(self, segments: Sequence[str], log_posteriors: Sequence[NDArray[np.float32]]) -> BatchLosses:
        """Loss and error signal of each segment, given log-posteriors (T, V); called only with the capability for
        it.
        """

    def close(self) -> None:
        """Ends what the engine has started. No call is made afterwards."""


@runtime_checkable
class Pooled(Protocol):
    """An engine in pools of worker processes."""

    def counters(self) -> dict[str, PoolCounters]:
        """What each pool has done so far, by its name."""
