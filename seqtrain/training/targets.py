"""What a recipe's results are meant to reach, so that a change that breaks training is noticed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Target", "check_targets"]


@dataclass(frozen=True)
class Target:
    """One figure and its bound; `value` is None where the run hasn't measured it."""

    name: str
    value: float | None
    bound: float
    at_most: bool

    @property
    def met(self) -> bool:
        """Whether the figure was measured and keeps to its bound."""
        if self.value is None:
            return False
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self) -> str:
        measured = "not measured" if self.value is None else f"{self.value:.1f}"
        verdict = "met" if self.met else "MISSED"
        return (
            f"{verdict}: {self.name} {measured}, {'at most' if self.at_most else 'at least'} {self.bound:g}"
        )


def check_targets(
    results: Mapping[str, Any], *, at_most: Mapping[str, float], at_least: Mapping[str, float]
) -> list[Target]:
    """The targets and whether they are met.

    Names are `set.stage.measure`: measures are `per`, `wer_open`, `wer_closed`, `starts_within` and `ends_within`, all
    in percent. Targets of sets that this corpus doesn't have are left out (synthetic digits may stand in for it).
    """
    known = results.get("corpus", {}).get("heldout", {})
    return [
        Target(name, _measured(results, name), bound, most)
        for bounds, most in ((at_most, True), (at_least, False))
        for name, bound in bounds.items()
        if name.split(".")[0] in known
    ]


def _measured(results: Mapping[str, Any], name: str) -> float | None:
    heldout, stage, measure = name.split(".")
    scores = results.get("scores", {}).get(heldout, {}).get(stage, {})
    if measure in scores:
        return float(scores[measure]["percent"])
    boundaries = results.get("boundaries", {}).get(heldout, {}).get(stage, {})
    return 100 * float(boundaries[measure]) if measure in boundaries else None
