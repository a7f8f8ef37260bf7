"""What happens to utterances without a path, beside the error: they are counted and named, never dropped silently."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

__all__ = ["InfeasibleCount", "report"]

_LOGGER = logging.getLogger("seqtrain")
_NAMED = 5


class InfeasibleCount:
    """Running count of the utterances that a policy of "mask" or "inf" took out.

    Attributes:
        utterances: seen so far.
        infeasible: of these, without a path.
        last: indices of the infeasible ones in the last batch.
        last_tags: their names, where the batch had names.
    """

    def __init__(self) -> None:
        self.utterances = 0
        self.infeasible = 0
        self.last: tuple[int, ...] = ()
        self.last_tags: tuple[str, ...] = ()

    def add(self, status: torch.Tensor, tags: Sequence[str] | None) -> None:
        """Counts one batch; `status` (B,) is negative where an utterance has no path."""
        self.utterances += status.shape[0]
        self.last = tuple((status < 0).nonzero().flatten().tolist())
        self.last_tags = tuple(tags[i] for i in self.last) if tags is not None else ()
        self.infeasible += len(self.last)

    def __repr__(self) -> str:
        return f"InfeasibleCount({self.infeasible} of {self.utterances} utterances)"


def report(
    status: torch.Tensor, tags: Sequence[str] | None, count: InfeasibleCount | None, policy: str
) -> None:
    """Counts the utterances without a path and names them in the log of `seqtrain`."""
    if count is not None:
        count.add(status, tags)
    if policy == "raise" or not bool(status.any()):
        return
    indices = (status < 0).nonzero().flatten().tolist()
    names = [tags[i] if tags is not None else str(i) for i in indices[:_NAMED]]
    more = f" and {len(indices) - _NAMED} more" if len(indices) > _NAMED else ""
    _LOGGER.warning(
        "%d of %d utterances have no path (on_infeasible=%r): %s%s",
        len(indices), status.shape[0], policy, ", ".join(names), more,
    )  # fmt: skip
