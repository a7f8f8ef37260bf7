"""What the sweeps over the frames of automata take of a block (csrc/cuda/sweep.h)."""

from __future__ import annotations

import torch

__all__ = ["SLOTS_AHEAD", "SWEEP_THREADS", "cell_bytes", "cells", "state_bytes"]

SWEEP_THREADS = 512
"""Threads of a block, at most."""
SLOTS_AHEAD = 6
"""Frames whose inputs have a place in shared memory (csrc/cuda/read_ahead.h)."""
_PADDING = 4  # states beside a frame's own
_ARRAYS = 2  # the frame before, and the frame


def state_bytes(states: int, real: torch.dtype) -> int:
    """Memory for the states of two frames, a mantissa and an exponent of 4 bytes each."""
    return _ARRAYS * (states + _PADDING) * (torch.finfo(real).bits // 8 + 4)


def cell_bytes(real: torch.dtype) -> int:
    """Of a number of a sweep, a mantissa and an exponent in one word of twice its size (csrc/cuda/cell.h)."""
    return torch.finfo(real).bits // 4


def cells(*shape: int, real: torch.dtype, device: torch.device) -> torch.Tensor:
    """Memory for such numbers."""
    return torch.empty((*shape, 2), dtype=real, device=device)
