"""What happens to utterances without a path, beside the error: they are counted and named, never dropped silently."""

from __future__ import annotations

import itertools
import logging
import weakref
from collections.abc import Sequence

import torch

from seqtrain.capture import is_capturing
from seqtrain.torch_versions import is_compiling

__all__ = ["NOT_HERE", "NO_COUNT", "InfeasibleCount", "handle", "report", "report_inside"]

_LOGGER = logging.getLogger("seqtrain")
_NAMED = 5
_HANDLES = itertools.count(1)
_COUNTS: weakref.WeakValueDictionary[int, InfeasibleCount] = weakref.WeakValueDictionary()

NOT_HERE = -1
"""Handle that tells an operator to leave counting and logging to its caller."""
NO_COUNT = 0
"""Handle that tells an operator to log, and to count nowhere."""


class InfeasibleCount:
    """Running count of the utterances that a policy of "mask" or "inf" took out; replays of CUDA graphs aren't counted.

    Attributes:
        utterances: seen so far.
        infeasible: of these, without a path.
        last: indices of the infeasible ones in the last batch.
        last_tags: their names, where the batch had names (compiled code passes none).
        handle: number by which compiled code, which can't change Python objects, finds this count.
    """

    def __init__(self) -> None:
        self.utterances = 0
        self.infeasible = 0
        self.last: tuple[int, ...] = ()
        self.last_tags: tuple[str, ...] = ()
        self._register()

    def _register(self) -> None:
        self.handle = next(_HANDLES)
        _COUNTS[self.handle] = self

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "handle"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._register()

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
    """Counts the utterances without a path and names them in the log of `seqtrain`.

    Not in the replays of a CUDA graph, in which only the device takes part.
    """
    if is_capturing(status.device):
        return
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


def report_inside(status: torch.Tensor, handle: int, policy: str) -> None:
    """`report` from inside an operator, for compiled code; `handle` is that of a count, NO_COUNT or NOT_HERE."""
    if handle != NOT_HERE:
        report(status, None, _COUNTS.get(handle), policy)


def handle(count: InfeasibleCount | None) -> int:
    """What to pass to an operator: compiled code leaves counting to it, other code counts with names itself."""
    if not is_compiling():
        return NOT_HERE
    return NO_COUNT if count is None else count.handle
