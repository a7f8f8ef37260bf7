"""Automata as the operators take them: the flat tensors of an `FsaBatch`, in a fixed order.

arcs (ΣA, 3), weights (ΣA,), arc_offsets (G + 1,), final_states (ΣF,), final_weights (ΣF,), final_offsets (G + 1,),
starts (G,), num_states (G,)
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from seqtrain.errors import FsaError
from seqtrain.ops import arguments
from seqtrain.ops.kernels import KERNELS

__all__ = ["SCHEMA", "Automata", "Summary", "infeasible_items", "rejected", "summarize"]

SCHEMA = (
    "Tensor arcs, Tensor weights, Tensor arc_offsets, Tensor final_states, Tensor final_weights, "
    "Tensor final_offsets, Tensor starts, Tensor num_states"
)

GraphsArgument = tuple[int, int, int, int, int, int, int, int, int]


class Automata(NamedTuple):
    """G automata, or one that all utterances share (G = 1)."""

    arcs: torch.Tensor
    weights: torch.Tensor
    arc_offsets: torch.Tensor
    final_states: torch.Tensor
    final_weights: torch.Tensor
    final_offsets: torch.Tensor
    starts: torch.Tensor
    num_states: torch.Tensor

    @property
    def size(self) -> int:
        """G."""
        return self.starts.shape[0]

    def for_kernels(self) -> Automata:
        """The same in host memory, in the types that the kernels read; the result must outlive `argument`."""
        host = arguments.host
        return Automata(
            host(self.arcs, torch.int32),
            host(self.weights, torch.float64),
            host(self.arc_offsets, torch.int64),
            host(self.final_states, torch.int32),
            host(self.final_weights, torch.float64),
            host(self.final_offsets, torch.int64),
            host(self.starts, torch.int32),
            host(self.num_states, torch.int32),
        )

    def check_weights(self) -> None:
        """Raises FsaError where a weight is NaN or +inf: since the automaton was checked, an optimizer may have run."""
        for name, weights, offsets in (
            ("weight of arc", self.weights, self.arc_offsets),
            ("final weight", self.final_weights, self.final_offsets),
        ):
            if weights.numel() == 0 or bool((weights < torch.inf).all()):
                continue
            flat = int((~(weights < torch.inf)).nonzero()[0])
            g = int(torch.searchsorted(offsets, flat, right=True)) - 1
            item = flat - int(offsets[g])
            raise FsaError(
                f"{name} {item} of automaton {g} is {float(weights[flat])}; weights must be below +inf and not NaN: "
                "did training of the weights diverge?",
                sequence=g,
                arc=item if name == "weight of arc" else None,
            )

    def argument(self) -> GraphsArgument:
        return (
            self.size,
            self.arcs.data_ptr(),
            self.weights.data_ptr(),
            self.arc_offsets.data_ptr(),
            self.final_states.data_ptr(),
            self.final_weights.data_ptr(),
            self.final_offsets.data_ptr(),
            self.starts.data_ptr(),
            self.num_states.data_ptr(),
        )


class Summary(NamedTuple):
    """Of each automaton: fewest and most frames it accepts (-1: nothing, no bound), number of distinct labels."""

    fewest: torch.Tensor
    most: torch.Tensor
    labels: torch.Tensor


def summarize(automata: Automata) -> Summary:
    """Looks at structure and forbidden arcs alone; costs about what one frame of the recursion does."""
    count = automata.size
    summary = Summary(*(torch.full((count,), -1, dtype=torch.int64) for _ in range(3)))
    KERNELS.summarize(automata.argument(), *(field.data_ptr() for field in summary), torch.get_num_threads())
    return summary


def rejected(summary: Summary, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(B,) each: whose automaton accepts nothing, who has too few frames for it, who has too many."""
    fewest, most = summary.fewest.expand_as(lengths), summary.most.expand_as(lengths)
    return fewest < 0, lengths < fewest, (most >= 0) & (lengths > most)


def infeasible_items(
    summary: Summary, lengths: torch.Tensor
) -> tuple[torch.Tensor, list[tuple[int, int, int | None, str]]]:
    """Status (B,) before the recursion, and what to report: who has fewer or more frames than its automaton accepts."""
    fewest, most = summary.fewest.expand_as(lengths), summary.most.expand_as(lengths)
    empty, short, long = rejected(summary, lengths)
    wrong = empty | short | long
    status = torch.where(wrong, arguments.INFEASIBLE, 0)
    if not bool(wrong.any()):
        return status, []
    items: list[tuple[int, int, int | None, str]] = []
    for b in (int(b) for b in wrong.nonzero().flatten()):
        if empty[b]:
            needed, reason = None, "its automaton accepts nothing: no final state can be reached"
        elif short[b]:
            needed, reason = int(fewest[b]), "too few frames for the shortest path of its automaton"
        else:
            needed, reason = None, f"more frames than the longest path of its automaton has ({int(most[b])})"
        items.append((b, int(lengths[b]), needed, reason))
    return status, items
