"""What is made of a tensor for a device, kept as long as the tensor lives."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

import torch

__all__ = ["KeptBy"]

_Thing = TypeVar("_Thing")


class KeptBy(Generic[_Thing]):
    """One thing for each owner and device.

    Who uses a thing returns only when the device is done, so that nothing is freed in use.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, torch.device], tuple[weakref.ref[torch.Tensor], _Thing]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, owner: torch.Tensor, device: torch.device) -> _Thing | None:
        """None where there is none."""
        kept = self._kept.get((id(owner), device))
        return kept[1] if kept is not None and kept[0]() is owner else None

    def put(self, owner: torch.Tensor, device: torch.device, thing: _Thing) -> _Thing:
        """In place of what was there."""
        key = (id(owner), device)

        def forget(gone: weakref.ref[torch.Tensor]) -> None:
            now = self._kept.get(key)
            if now is not None and now[0] is gone:
                del self._kept[key]

        self._kept[key] = (weakref.ref(owner, forget), thing)
        return thing
