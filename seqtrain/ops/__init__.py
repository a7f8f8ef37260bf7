"""Torch operators over the compiled kernels: registration, fake kernels, autograd. Raw tensors only.

What an operator takes and returns is said in its file; `seqtrain.functional` is where an `FsaBatch` meets them.
"""

from __future__ import annotations

from seqtrain.ops import (
    best_path,
    ctc,
    cuda,
    denominator,
    full_sum,
    full_sum_gradient,
    full_sum_tangents,
    intersect,
    lattice_paths,
    lattice_total,
    posteriors,
    risk,
)

__all__ = [
    "best_path",
    "ctc",
    "cuda",
    "denominator",
    "full_sum",
    "full_sum_gradient",
    "full_sum_tangents",
    "intersect",
    "lattice_paths",
    "lattice_total",
    "posteriors",
    "risk",
]
