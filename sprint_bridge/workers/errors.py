"""What goes wrong with engines and their processes, as against with an item."""

from __future__ import annotations

from seqtrain.errors import SeqtrainError

__all__ = ["EngineMismatchError", "EngineMissingError", "EngineStartError", "WorkerFailedError"]


class WorkerFailedError(SeqtrainError):
    """A worker died, didn't answer in time, or answered nonsense; it is of no use any more.

    The supervisor replaces it, and makes of this what the item's caller is told.
    """


class EngineStartError(SeqtrainError):
    """An engine can't be started: its program is missing, ends, isn't ready in time, or refuses its configuration."""


class EngineMissingError(EngineStartError, ImportError):
    """The module of an engine can't be imported where its worker runs."""


class EngineMismatchError(EngineStartError):
    """Instances of one engine disagree about their labels or configuration."""
