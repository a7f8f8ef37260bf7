"""Paths through lattices as operators, and what trims lattices to them. None has a derivative: they choose.

lattice_best_paths(<lattices>, count, tokens (ΣA,) int32 | None)
lattice_sample(<lattices>, count, seed)
    → path_offsets (B + 1,) into the N paths, arc_offsets (N + 1,) into their arcs, arcs, finals (N,); arcs and
      final states are indices into the batch's
lattice_best_scores(<lattices>) → from_start (ΣS,), to_end (ΣS,) float64
lattice_trim(<lattices>, keep_arcs (ΣA,) bool, keep_finals (ΣF,) bool) → arcs, finals, states (ΣS,), all bool
"""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.ops.kernels import KERNELS
from seqtrain.ops.lattices import LATTICE_SCHEMA, Lattices, check_weights
from seqtrain.ops.library import register

__all__ = ["lattice_best_paths", "lattice_best_scores", "lattice_sample", "lattice_trim"]


def _lattices(*tensors: torch.Tensor) -> Lattices:
    lattices = Lattices(*tensors).for_kernels()
    check_weights(lattices)
    return lattices


def _path_tensors(found: Any, lattices: Lattices) -> tuple[torch.Tensor, ...]:
    """What the kernel found, in tensors, with indices into the batch's arcs and final states."""
    paths, path_arcs = found.sizes()
    counts = torch.empty(lattices.size, dtype=torch.int64)
    lengths, finals = (torch.empty(paths, dtype=torch.int64) for _ in range(2))
    arcs = torch.empty(path_arcs, dtype=torch.int64)
    found.copy(counts.data_ptr(), lengths.data_ptr(), arcs.data_ptr(), finals.data_ptr())
    path_offsets, arc_offsets = (torch.zeros(n + 1, dtype=torch.int64) for n in (lattices.size, paths))
    torch.cumsum(counts, 0, out=path_offsets[1:])
    torch.cumsum(lengths, 0, out=arc_offsets[1:])
    utterance = torch.repeat_interleave(counts)
    finals += lattices.final_offsets[utterance]
    arcs += lattices.arc_offsets[utterance.repeat_interleave(lengths)]
    return path_offsets, arc_offsets, arcs, finals


def _paths_fake(arc_offsets: torch.Tensor) -> tuple[torch.Tensor, ...]:
    context = torch.library.get_ctx()
    paths, arcs = context.new_dynamic_size(), context.new_dynamic_size()
    return tuple(
        arc_offsets.new_empty((size,), dtype=torch.int64)
        for size in (arc_offsets.shape[0], paths + 1, arcs, paths)
    )


def _best_paths(*operands: Any) -> tuple[torch.Tensor, ...]:
    *tensors, count, tokens = operands
    lattices = _lattices(*tensors)
    labels = None if tokens is None else tokens.to(torch.int32).contiguous()
    # An empty tensor has no address, and without arcs tokens make no difference.
    found = KERNELS.lattice_best_paths(
        lattices.argument(), count, 0 if labels is None else labels.data_ptr(), torch.get_num_threads()
    )
    return _path_tensors(found, lattices)


def _sample(*operands: Any) -> tuple[torch.Tensor, ...]:
    *tensors, count, seed = operands
    lattices = _lattices(*tensors)
    found = KERNELS.lattice_sample(lattices.argument(), count, seed, torch.get_num_threads())
    return _path_tensors(found, lattices)


def _best_scores(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    lattices = _lattices(*tensors)
    states = int(lattices.state_offsets[-1])
    from_start, to_end = (torch.empty(states, dtype=torch.float64) for _ in range(2))
    KERNELS.lattice_best_scores(
        lattices.argument(), from_start.data_ptr(), to_end.data_ptr(), torch.get_num_threads()
    )
    return from_start, to_end


def _best_scores_fake(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    states = torch.library.get_ctx().new_dynamic_size()
    return tensors[1].new_empty((states,), dtype=torch.float64), tensors[1].new_empty(
        (states,), dtype=torch.float64
    )


def _trim(*operands: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    *tensors, keep_arcs, keep_finals = operands
    lattices = _lattices(*tensors)
    arcs, finals = keep_arcs.to(torch.bool).clone(), keep_finals.to(torch.bool).clone()
    states = torch.zeros(int(lattices.state_offsets[-1]), dtype=torch.bool)
    KERNELS.lattice_trim(
        lattices.argument(), arcs.data_ptr(), finals.data_ptr(), states.data_ptr(), torch.get_num_threads()
    )
    return arcs, finals, states


def _trim_fake(*operands: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    *_, keep_arcs, keep_finals = operands
    states = torch.library.get_ctx().new_dynamic_size()
    return (
        keep_arcs.new_empty(keep_arcs.shape),
        keep_finals.new_empty(keep_finals.shape),
        keep_arcs.new_empty((states,)),
    )


_PATHS = "(Tensor path_offsets, Tensor arc_offsets, Tensor path_arcs, Tensor path_finals)"
register(
    f"lattice_best_paths({LATTICE_SCHEMA}, SymInt count, Tensor? tokens) -> {_PATHS}",
    cpu=_best_paths,
    fake=lambda *operands: _paths_fake(operands[2]),
)
register(
    f"lattice_sample({LATTICE_SCHEMA}, SymInt count, int seed) -> {_PATHS}",
    cpu=_sample,
    fake=lambda *operands: _paths_fake(operands[2]),
)
register(
    f"lattice_best_scores({LATTICE_SCHEMA}) -> (Tensor from_start, Tensor to_end)",
    cpu=_best_scores,
    fake=_best_scores_fake,
)
register(
    f"lattice_trim({LATTICE_SCHEMA}, Tensor keep_arcs, Tensor keep_finals) -> (Tensor arcs_kept, Tensor finals_kept, "
    "Tensor states_kept)",
    cpu=_trim,
    fake=_trim_fake,
)

lattice_best_paths = torch.ops.seqtrain.lattice_best_paths
lattice_sample = torch.ops.seqtrain.lattice_sample
lattice_best_scores = torch.ops.seqtrain.lattice_best_scores
lattice_trim = torch.ops.seqtrain.lattice_trim
