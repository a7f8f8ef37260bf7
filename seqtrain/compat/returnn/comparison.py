"""Comparison of what was computed with what RETURNN recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["ABSOLUTE", "RELATIVE", "Comparison"]

RELATIVE, ABSOLUTE = 2e-4, 5e-5
"""Tolerances: RETURNN's numbers are TensorFlow's float32."""


class Comparison:
    """Collects differences; `differences` is empty where everything agrees."""

    def __init__(self) -> None:
        self.differences: list[str] = []
        self.count = 0

    def add(self, name: str, found: torch.Tensor | None, expected: NDArray[Any] | None) -> None:
        """Compares one array; None on either side means that there is none."""
        if found is None and expected is None:
            return
        self.count += 1
        if found is None or expected is None:
            self.differences.append(
                f"{name} is {'missing' if found is None else 'there, but not in RETURNN'}"
            )
            return
        mine = found.detach().cpu().double().numpy()
        theirs = np.asarray(expected, dtype=np.float64)
        if mine.shape != theirs.shape:
            self.differences.append(f"{name} has shape {mine.shape}, RETURNN's {theirs.shape}")
            return
        close = np.isclose(mine, theirs, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
        if not close.all():
            where = tuple(int(i) for i in np.argwhere(~close)[0])
            self.differences.append(
                f"{name}{list(where)} is {mine[where]:.7g}, RETURNN's {theirs[where]:.7g} "
                f"({int((~close).sum())} of {close.size} differ)"
            )
