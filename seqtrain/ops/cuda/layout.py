"""Automata laid out for the kernels on a device (csrc/cuda/graph_table.h, path_table.h), copied at once."""

from __future__ import annotations

from typing import NamedTuple

import torch

from seqtrain.ops.automata import Automata
from seqtrain.ops.cuda.copies import to_device
from seqtrain.ops.cuda.runtime import Argument, Runtime
from seqtrain.ops.kernels import KERNELS

__all__ = ["Layout", "lay_out", "lay_out_best_path"]


class Layout(NamedTuple):
    """A batch's layout on the device.

    Attributes:
        fields: of a kernel's problem, by their names: the tables of the graphs and the arrays that they count from.
        nodes: the most of a graph; what a frame of the recursion holds.
        columns: (G, K) int64 label of each column on the device, -1 past the last.
    """

    fields: dict[str, Argument]
    nodes: int
    columns: torch.Tensor


def lay_out(on: Runtime, automata: Automata, dtype: torch.dtype, width: int, *, with_weights: bool) -> Layout:
    """Lays out automata whose tensors are what the kernels of the CPU take, K being `width`."""
    columns = torch.full((automata.size, width), -1, dtype=torch.int64)
    make = (
        KERNELS.lay_out_for_device_float64 if dtype == torch.float64 else KERNELS.lay_out_for_device_float32
    )
    found = make(automata.argument(), with_weights, width, columns.data_ptr(), torch.get_num_threads())
    return _copied(on, automata, found, columns)


def lay_out_best_path(on: Runtime, automata: Automata) -> Layout:
    """Likewise for the search of the best path; `nodes` are states, and there are no columns."""
    found = KERNELS.lay_out_best_path(automata.argument())
    return _copied(on, automata, found, torch.zeros((automata.size, 0), dtype=torch.int64))


def _copied(
    on: Runtime, automata: Automata, found: tuple[bytearray, int, int, int], columns: torch.Tensor
) -> Layout:
    content, reals, integers, nodes = found
    # Torch takes no empty memory.
    block = to_device(torch.frombuffer(content or bytearray(1), dtype=torch.uint8), on.device)
    fields: dict[str, Argument] = {
        "graphs": block,
        "reals": block[reals:],
        "integers": block[integers:],
        "shared_graph": automata.size == 1,
    }
    return Layout(fields, nodes, to_device(columns, on.device))
