"""A shared denominator's layout on a device, copied once and kept there as long as the layout lives in host memory."""

from __future__ import annotations

from typing import NamedTuple

import torch

from seqtrain.capture import refused
from seqtrain.ops.cuda.copies import DeviceCopies, keep_for_graphs
from seqtrain.ops.cuda.kept import KeptBy
from seqtrain.ops.cuda.runtime import Argument, Runtime
from seqtrain.ops.kernels import KERNELS

__all__ = ["DeviceLayout", "kept_layout", "lay_out_once"]


class DeviceLayout(NamedTuple):
    """What `csrc/cuda/denominator.h` reads of one automaton, beside its weights.

    Attributes:
        fields: of the kernel's problem, by their names.
        width: numbers of a frame of the recursion.
        has_path: whether any path leads from the start to a final state.
        columns: (1, K) int64 label of each column.
        incoming_arc, outgoing_arc, node_state: int32, whose weight stands at each place; -1 at padding.
        place_of_arc: (A,) int64, where an arc stands among the incoming ones; -1 where it's on no path.
        final_used: (F,) bool, whether a final state is on a path.
        arcs, finals: int64 in host memory, those that are on a path.
        copies: what the calls over the automaton have copied to the device.
    """

    fields: dict[str, Argument]
    width: int
    has_path: bool
    columns: torch.Tensor
    incoming_arc: torch.Tensor
    outgoing_arc: torch.Tensor
    node_state: torch.Tensor
    place_of_arc: torch.Tensor
    final_used: torch.Tensor
    arcs: torch.Tensor
    finals: torch.Tensor
    copies: DeviceCopies


# By the layout in host memory.
_KEPT: KeptBy[DeviceLayout] = KeptBy()

_ONLY_HERE = frozenset({"column_label", "incoming_arc", "outgoing_arc", "node_state"})


def lay_out_once(on: Runtime, layout: torch.Tensor, num_arcs: int) -> DeviceLayout:
    """Of what `seqtrain.ops.denominator.lay_out` made of an automaton of `num_arcs` arcs; nobody may write to it."""
    kept = _KEPT.get(layout, on.device)
    return kept if kept is not None else _KEPT.put(layout, on.device, _lay_out(on, layout, num_arcs))


def kept_layout(on: Runtime, layout: torch.Tensor) -> DeviceLayout:
    """What `lay_out_once` has made before, for a capture in a CUDA graph, which reads it from then on."""
    kept = _KEPT.get(layout, on.device)
    if kept is None:
        raise refused(
            f"the automaton has not been laid out on {on.device} yet, which a capture in a CUDA graph can't do: make "
            "one call, forward and backward, before the capture"
        )
    keep_for_graphs(kept)
    return kept


def _lay_out(on: Runtime, layout: torch.Tensor, num_arcs: int) -> DeviceLayout:
    content, arrays, counts = KERNELS.lay_out_denominator_for_device(layout.data_ptr())
    # One byte more: torch takes no empty memory.
    host = torch.frombuffer(bytearray(content + b"\0"), dtype=torch.uint8)
    block = host.to(on.device)

    def integers(memory: torch.Tensor, name: str) -> torch.Tensor:
        place, items = arrays[name]
        return memory[place : place + 4 * items].view(torch.int32)

    here = integers(host, "incoming_arc").to(torch.int64)
    places = (here >= 0).nonzero().flatten()
    place_of_arc = torch.full((num_arcs,), -1, dtype=torch.int64)
    place_of_arc[here[places]] = places
    final_used = integers(host, "final_slot") >= 0
    fields: dict[str, Argument] = {
        name: block[place:] for name, (place, _) in arrays.items() if name not in _ONLY_HERE
    }
    return DeviceLayout(
        fields={**fields, **counts, "arc_places": here.shape[0]},
        width=counts["arrivals"] + counts["aggregates"] + 1,
        has_path=counts["start_node"] >= 0,
        columns=integers(block, "column_label").to(torch.int64)[None],
        incoming_arc=integers(block, "incoming_arc"),
        outgoing_arc=integers(block, "outgoing_arc"),
        node_state=integers(block, "node_state"),
        place_of_arc=place_of_arc.to(on.device),
        arcs=(place_of_arc >= 0).nonzero().flatten(),
        final_used=final_used.to(on.device),
        finals=final_used.nonzero().flatten(),
        copies=DeviceCopies(),
    )
