"""Learning-rate schedule by steps, never by wall time: a slower machine trains the same model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from seqtrain.errors import ArgumentError

__all__ = ["StepSchedule"]


@dataclass(frozen=True, kw_only=True)
class StepSchedule:
    """Linear warm-up, a plateau, then a cosine down to a small share of the peak.

    Args:
        steps: steps of the whole training.
        warmup: steps of the linear rise.
        plateau: share of `steps` at which the decay starts.
        floor: share of the peak that is left at the last step.
    """

    steps: int
    warmup: int = 200
    plateau: float = 0.3
    floor: float = 0.02

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ArgumentError(f"steps is {self.steps}; it must be positive", argument="steps")
        if self.warmup < 0:
            raise ArgumentError(f"warmup is {self.warmup}; it must not be negative", argument="warmup")
        for name in ("plateau", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ArgumentError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]", argument=name)

    def factor(self, step: int) -> float:
        """Share of the peak learning rate for the step that follows `step` finished ones."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        start = self.plateau * self.steps
        if step <= start:
            return rise
        progress = min(1.0, (step - start) / (self.steps - start))
        return rise * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress)))
