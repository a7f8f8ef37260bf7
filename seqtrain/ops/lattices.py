"""Lattices as the operators take them: the flat tensors of a `seqtrain.lattice.Lattice`, in a fixed order.

arcs (ΣA, 3), weights (ΣA,), arc_offsets (B + 1,), state_offsets (B + 1,), final_states (ΣF,), final_weights (ΣF,),
final_offsets (B + 1,)
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from seqtrain.errors import FsaError
from seqtrain.ops import arguments

__all__ = [
    "BAD_WEIGHT",
    "LARGEST_WEIGHT",
    "LATTICE_SCHEMA",
    "Lattices",
    "check_order",
    "check_status",
    "check_weights",
    "refuse_weights",
]

BAD_WEIGHT = 1
"""Status of an utterance whose weights hold NaN, +inf, or a number of `LARGEST_WEIGHT` and more."""

LARGEST_WEIGHT = 1e12
"""Weights must be below; what lies below its negative counts as -inf."""

LATTICE_SCHEMA = (
    "Tensor arcs, Tensor weights, Tensor arc_offsets, Tensor state_offsets, Tensor final_states, "
    "Tensor final_weights, Tensor final_offsets"
)


class Lattices(NamedTuple):
    """B lattices."""

    arcs: torch.Tensor
    weights: torch.Tensor
    arc_offsets: torch.Tensor
    state_offsets: torch.Tensor
    final_states: torch.Tensor
    final_weights: torch.Tensor
    final_offsets: torch.Tensor

    @property
    def size(self) -> int:
        """B."""
        return self.arc_offsets.shape[0] - 1

    def for_kernels(self) -> Lattices:
        """The same in the types that the kernels read; the result must outlive `argument`."""
        host = arguments.host
        return Lattices(
            host(self.arcs, torch.int32),
            host(self.weights, torch.float64),
            host(self.arc_offsets, torch.int64),
            host(self.state_offsets, torch.int64),
            host(self.final_states, torch.int32),
            host(self.final_weights, torch.float64),
            host(self.final_offsets, torch.int64),
        )

    def argument(self) -> tuple[int, int, int, int, int, int, int, int]:
        return (
            self.size,
            self.arcs.data_ptr(),
            self.weights.data_ptr(),
            self.arc_offsets.data_ptr(),
            self.state_offsets.data_ptr(),
            self.final_states.data_ptr(),
            self.final_weights.data_ptr(),
            self.final_offsets.data_ptr(),
        )


def check_order(b: int, arcs: torch.Tensor, final_states: torch.Tensor, states: int, fault: int) -> str:
    """What lattice b calls the item of a fault: 1 + an arc, or -1 - the position of a final state.

    Takes the lattice's own arcs (A, 3), final states (F,) and number of states. Raises FsaError where the item breaks
    the order that the sweeps count on; else there must be something wrong with its weight or risk.
    """
    if fault < 0:
        state = int(final_states[-1 - fault])
        name = f"final state {state} of lattice {b}"
        if not 0 <= state < states:
            raise FsaError(f"{name} is outside its {states} states", sequence=b, state=state)
        return name
    arc = fault - 1
    source, destination = arcs[arc, :2].tolist()
    before = int(arcs[arc - 1, 0]) if arc else 0
    name = f"arc {arc} ({source} → {destination}) of lattice {b}"
    if source < before or not 0 <= source < destination < states:
        raise FsaError(
            f"{name} breaks the order of a lattice of {states} states: arcs must be sorted by source (the one before "
            f"leaves state {before}) and lead to a higher state",
            sequence=b, arc=arc, state=source,
        )  # fmt: skip
    return name


def refuse_weights(b: int) -> FsaError:
    """The error for lattice b, whose weights no kernel can use."""
    return FsaError(
        f"weights of lattice {b} hold NaN, +inf or a number above {LARGEST_WEIGHT:g}; log weights must be below: did "
        "training of the weights diverge?",
        sequence=b,
    )


def check_status(status: torch.Tensor) -> None:
    """Raises FsaError for the first utterance whose weights a kernel couldn't use."""
    bad = (status == BAD_WEIGHT).nonzero()
    if bad.numel():
        raise refuse_weights(int(bad[0]))


def check_weights(lattices: Lattices) -> None:
    """Raises FsaError for the first utterance whose weights a kernel couldn't use."""
    for weights, offsets in (
        (lattices.weights, lattices.arc_offsets),
        (lattices.final_weights, lattices.final_offsets),
    ):
        bad = (~(weights < LARGEST_WEIGHT)).nonzero()
        if bad.numel():
            raise refuse_weights(int(torch.searchsorted(offsets, int(bad[0]), right=True)) - 1)
