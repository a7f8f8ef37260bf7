"""Where a criterion gets automata or error signals from: an aligner's client, its address, or a local builder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

import torch

from seqtrain.errors import ArgumentError
from seqtrain.fsa import FsaBatch
from seqtrain.functional import full_sum, posteriors

__all__ = [
    "AutomatonSource",
    "ErrorSignalAnswer",
    "ErrorSignalSource",
    "ErrorSignals",
    "FullSumSignals",
    "automaton_source",
    "error_signal_source",
]


class AutomatonSource(Protocol):
    """Whatever has automata for names of utterances: an `AlignerClient`, a local `AutomatonBuilder`."""

    def automata(self, tags: Sequence[str]) -> FsaBatch: ...


class ErrorSignals(NamedTuple):
    """What an aligner answers.

    Attributes:
        losses: (B,) float; +inf where it skipped the utterance.
        signals: (B, T, V) float, ∂ loss_b / ∂ logits[b]; anything past the end.
        reasons: for each utterance None, or why it was skipped; empty where the aligner doesn't say.
    """

    losses: torch.Tensor
    signals: torch.Tensor
    reasons: Sequence[str | None] = ()


class ErrorSignalAnswer(Protocol):
    """`ErrorSignals`, or what has the same: a `LossBatch` of the client."""

    @property
    def losses(self) -> torch.Tensor: ...

    @property
    def signals(self) -> torch.Tensor: ...

    @property
    def reasons(self) -> Sequence[str | None]: ...


class ErrorSignalSource(Protocol):
    """Whatever has losses and error signals: an `AlignerClient`, or a stand-in."""

    def error_signals(
        self, tags: Sequence[str], log_posteriors: torch.Tensor, lengths: torch.Tensor
    ) -> ErrorSignalAnswer:
        """Losses and signals for (B, T, V) float32 log-posteriors (0 past the end) of the utterances named."""


class FullSumSignals:
    """The full-sum criterion as an aligner's answer: -log of the sum over each automaton, and y - posteriors.

    What the service's local engine answers, computed here: for a source that has automata alone.
    """

    def __init__(self, source: AutomatonSource) -> None:
        self.source = source

    def error_signals(
        self, tags: Sequence[str], log_posteriors: torch.Tensor, lengths: torch.Tensor
    ) -> ErrorSignals:
        """Losses and signals for (B, T, V) log-posteriors; an utterance without a path has the loss +inf."""
        graphs = self.source.automata(tags)
        sums = full_sum(log_posteriors, lengths, graphs, on_infeasible="inf")
        occupancies = posteriors(log_posteriors, lengths, graphs, on_infeasible="mask")
        reasons = [None if value > -torch.inf else "no path fits" for value in sums.tolist()]
        return ErrorSignals(-sums, log_posteriors.exp() - occupancies, reasons)


def automaton_source(source: AutomatonSource | str) -> AutomatonSource:
    """The source itself, or a client of the service at an address.

    Raises:
        ArgumentError: it is neither.
    """
    if isinstance(source, str):
        from seqtrain.aligner import AlignerClient

        return AlignerClient(source)
    if not hasattr(source, "automata"):
        raise ArgumentError(
            f"automata must come from an AlignerClient, an address or a builder; {type(source).__name__} has no method "
            "automata",
            argument="automata",
        )
    return source


def error_signal_source(source: ErrorSignalSource | AutomatonSource | str) -> ErrorSignalSource:
    """The source itself, a client of the service at an address, or the full-sum criterion over a source of automata.

    Raises:
        ArgumentError: it is none of these.
    """
    if isinstance(source, str):
        from seqtrain.aligner import AlignerClient

        return AlignerClient(source)
    if hasattr(source, "error_signals"):
        return cast("ErrorSignalSource", source)
    if hasattr(source, "automata"):
        return FullSumSignals(source)
    raise ArgumentError(
        f"source must have a method error_signals, as an AlignerClient has, or automata, as a builder has; "
        f"{type(source).__name__} has neither",
        argument="source",
    )
