"""The structure of a batch of lattices on a device, laid out in host memory and kept as long as its arcs live."""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch

from seqtrain.ops import arguments
from seqtrain.ops.cuda.copies import to_device
from seqtrain.ops.cuda.kept import KeptBy
from seqtrain.ops.cuda.runtime import Runtime
from seqtrain.ops.kernels import KERNELS
from seqtrain.ops.lattices import Lattices

__all__ = ["LatticeLayout", "lay_out_once"]


class LatticeLayout(NamedTuple):
    """On the device; sizes are the most of a lattice, `widest` the most states of a level, `all_states` the batch's."""

    tables: torch.Tensor
    integers: torch.Tensor
    all_states: int
    states: int
    arcs: int
    widest: int


class _Kept(NamedTuple):
    """A layout and what it was made of, beside the arcs themselves.

    Attributes:
        offsets: (3, B + 1) int64 of arcs, states and final states, in host memory.
        final_states: their tensor.
        written: how often arcs and final states had been written to.
    """

    layout: LatticeLayout
    offsets: torch.Tensor
    final_states: weakref.ref[torch.Tensor]
    written: tuple[int, int]


_KEPT: KeptBy[_Kept] = KeptBy()


def lay_out_once(on: Runtime, lattices: Lattices) -> tuple[LatticeLayout | None, torch.Tensor]:
    """The structure, or None where an arc or a final state is out of order, which the second part (B,) then names.

    Made anew where another tensor has the arcs or the final states, or these were written to, or offsets are others.
    """
    arcs, finals = lattices.arcs, lattices.final_states
    offsets = _offsets(lattices)
    kept = _KEPT.get(arcs, on.device)
    tracked = not (arcs.is_inference() or finals.is_inference())
    written = (arcs._version, finals._version) if tracked else (-1, -1)
    if (
        kept is not None
        and kept.written == written
        and kept.final_states() is finals
        and torch.equal(kept.offsets, offsets)
    ):
        return kept.layout, torch.zeros(lattices.size, dtype=torch.int64)
    layout, fault = _lay_out(on, lattices, offsets)
    if layout is not None and tracked:
        _KEPT.put(arcs, on.device, _Kept(layout, offsets, weakref.ref(finals), written))
    return layout, fault


def _offsets(lattices: Lattices) -> torch.Tensor:
    """In host memory, in one copy."""
    parts = (lattices.arc_offsets, lattices.state_offsets, lattices.final_offsets)
    return arguments.int64(torch.stack([part.to(torch.int64) for part in parts]))


def _lay_out(
    on: Runtime, lattices: Lattices, offsets: torch.Tensor
) -> tuple[LatticeLayout | None, torch.Tensor]:
    nothing = torch.zeros(0, dtype=torch.float64)
    arc_offsets, state_offsets, final_offsets = offsets
    on_host = Lattices(
        lattices.arcs.to(device="cpu", dtype=torch.int32).contiguous(),
        nothing,
        arc_offsets,
        state_offsets,
        lattices.final_states.to(device="cpu", dtype=torch.int32).contiguous(),
        nothing,
        final_offsets,
    )
    fault = torch.zeros(lattices.size, dtype=torch.int64)
    content, integers, states, arcs, widest = KERNELS.lay_out_lattices(
        on_host.argument(), fault.data_ptr(), torch.get_num_threads()
    )
    if bool(fault.any()):
        return None, fault
    # One byte more: torch takes no empty memory.
    block = to_device(torch.frombuffer(bytearray(content + b"\0"), dtype=torch.uint8), on.device)
    return LatticeLayout(block, block[integers:], int(state_offsets[-1]), states, arcs, widest), fault
