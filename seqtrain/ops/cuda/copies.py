"""Copies of host memory on a device, which a capture of a CUDA graph takes over from the calls before it."""

from __future__ import annotations

import torch

from seqtrain.capture import is_capturing, refused

__all__ = ["DeviceCopies", "keep_for_graphs", "to_device"]

_IN_GRAPHS: dict[int, object] = {}


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor there, without waiting for what the stream has still to do, as a blocking copy would each time.

    Of host memory that isn't pinned CUDA has taken its own copy when this returns, so that it may be freed or written
    to. Pinned memory, which it would read later, is copied before.
    """
    if tensor.device == device:
        return tensor
    if tensor.is_pinned():
        tensor = tensor.clone()
    return tensor.to(device, non_blocking=True)


def keep_for_graphs(thing: object) -> None:
    """Keeps to the end of the process what a captured graph reads: nobody here knows how long the graph lives."""
    _IN_GRAPHS[id(thing)] = thing


def _version(tensor: torch.Tensor) -> int:
    """How often the tensor was written to; nobody writes to one of inference mode unseen."""
    return 0 if tensor.is_inference() else tensor._version


class DeviceCopies:
    """The latest of some tensors, by name."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[torch.Tensor, int, torch.Tensor]] = {}

    def float64(self, name: str, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """The tensor on the device: itself where it's there, else a copy, which a capture doesn't make.

        Raises:
            CudaError: in a capture, where the latest copy isn't of that very tensor or it was written to since.
        """
        # Within an operator, what is detached counts its writes anew.
        version, tensor = _version(tensor), tensor.detach()
        if tensor.device == device:
            return tensor.to(torch.float64).contiguous()
        if is_capturing(device):
            return self._latest(name, tensor, version)
        copy = to_device(tensor.to(torch.float64).contiguous(), device)
        self._made[name] = (tensor, version, copy)
        return copy

    def _latest(self, name: str, tensor: torch.Tensor, version: int) -> torch.Tensor:
        made = self._made.get(name)
        if made is None or made[0].data_ptr() != tensor.data_ptr() or made[1] != version:
            raise refused(
                f"{name} on {tensor.device} must be on the device before a capture in a CUDA graph: make one call with "
                "just these before the capture, or have them on the device"
            )
        keep_for_graphs(made[2])
        return made[2]
