"""Whether a CUDA graph is being captured, where the host may look at nothing, and what is refused there."""

from __future__ import annotations

import torch

from seqtrain.errors import CudaError
from seqtrain.torch_versions import is_compiling

__all__ = ["check_readable", "is_capturing", "refuse_capture", "refused"]


def is_capturing(device: torch.device) -> bool:
    """Whether work on the device is recorded for later instead of done; never in code that is being compiled."""
    return not is_compiling() and device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def refused(message: str) -> CudaError:
    """The error of what can't be captured."""
    return CudaError(message, call="cudaStreamBeginCapture")


def check_readable(tensor: torch.Tensor, device: torch.device, argument: str) -> None:
    """Raises CudaError where the replays on the device can't read the tensor, since it's elsewhere."""
    if tensor.device != device:
        raise refused(
            f"{argument} is on {tensor.device}, where the replays of a CUDA graph can't read it: pass "
            f"{argument}.to('{device}'), made before the capture"
        )


def refuse_capture(device: torch.device, function: str, reason: str, instead: str) -> None:
    """Raises CudaError in a capture: that the function can't be captured, why, and what to do."""
    if is_capturing(device):
        raise refused(f"{function} can't be captured in a CUDA graph, since {reason}: {instead}")
