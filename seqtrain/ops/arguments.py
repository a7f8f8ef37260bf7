"""What every operator does before its kernel: addresses and strides of tensors, checks of values, infeasible items.

Shapes, dtypes and devices are checked in `seqtrain.functional`, where they are known without looking at values. The
checks here look at values, and so run inside the operator, out of a compiler's sight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from seqtrain.capture import is_capturing, refuse_capture
from seqtrain.errors import Infeasible, InfeasibleError, NonFiniteScoresError, ShapeError
from seqtrain.ops.kernels import KERNELS
from seqtrain.torch_versions import increment_version

__all__ = [
    "BAD_INPUT",
    "INFEASIBLE",
    "NO_PATH",
    "POLICIES",
    "TensorArgument",
    "arithmetic_dtype",
    "batch_size",
    "check_lengths",
    "check_status",
    "gradient_layout",
    "host",
    "int64",
    "mark_overwritten",
    "new_output",
    "raise_infeasible",
    "refuse_raising",
    "tensor_argument",
    "value_dtype",
]

INFEASIBLE = -1
"""Status of an utterance whose automaton doesn't accept its number of frames."""
NO_PATH = -2
"""Status of an utterance whose every path has probability zero."""
BAD_INPUT = -3
"""Status of an utterance whose lengths, labels or weights can't be used, found in the replay of a CUDA graph alone: an
error elsewhere. These numbers are those of csrc/recursion/status.h."""
POLICIES = ("raise", "mask", "inf")

# Above, the system may have to move memory about to make huge pages, which costs more than the faults.
_SMALLEST_HUGE, _LARGEST_HUGE = 4 << 20, 256 << 20

TensorArgument = tuple[int, int, int, int, int, int]

_DTYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}


def arithmetic_dtype(scores: torch.Tensor) -> torch.dtype:
    """float64 for float64 scores, else float32."""
    return torch.float64 if scores.dtype == torch.float64 else torch.float32


def value_dtype(scores: torch.Tensor) -> torch.dtype:
    """Losses of half-precision scores come in float32: a sum over frames soon exceeds what half can hold."""
    return arithmetic_dtype(scores)


def host(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor, contiguous and of this type, in host memory (itself where it is that already)."""
    if tensor.dtype == dtype and tensor.device.type == "cpu" and tensor.is_contiguous():
        return tensor
    return tensor.detach().to(device="cpu", dtype=dtype).contiguous()


def int64(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as contiguous int64 in host memory (itself where it is that already)."""
    return host(tensor, torch.int64)


def batch_size(scores: torch.Tensor, offsets: torch.Tensor | None) -> int:
    """B of padded (B, T, V) or packed (ΣT, V) scores."""
    return scores.shape[0] if offsets is None else offsets.shape[0] - 1


def tensor_argument(tensor: torch.Tensor, offsets: torch.Tensor | None) -> TensorArgument:
    """What the kernels need of (B, T, V), or of packed (ΣT, V) with `offsets` (B + 1,) int64."""
    dtype = _DTYPES[tensor.dtype]
    if offsets is None:
        utterance, frame, label = tensor.stride()
        return (tensor.data_ptr(), dtype, utterance, frame, label, 0)
    frame, label = tensor.stride()
    return (tensor.data_ptr(), dtype, 0, frame, label, offsets.data_ptr())


def check_lengths(lengths: torch.Tensor, scores: torch.Tensor, offsets: torch.Tensor | None) -> None:
    """Raises ShapeError where a length is negative or beyond the frames there are."""
    if lengths.numel() == 0 and (offsets is None or scores.shape[0] == 0):
        return
    if offsets is None:
        limit = scores.shape[1]
        low, high = lengths.aminmax()
        if low >= 0 and high <= limit:
            return
        b = int(((lengths < 0) | (lengths > limit)).nonzero()[0])
        raise ShapeError(
            f"lengths[{b}] = {int(lengths[b])}, but scores have {limit} frames (T); lengths must lie in 0 … T",
            argument="lengths",
        )
    rows = offsets[1:] - offsets[:-1]
    if int(offsets[0]) != 0 or int(offsets[-1]) != scores.shape[0] or bool((rows < 0).any()):
        raise ShapeError(
            f"offsets must rise from 0 to {scores.shape[0]}, the rows of the packed scores; got "
            f"{int(offsets[0])} … {int(offsets[-1])}",
            argument="offsets",
        )
    bad = (lengths != rows).nonzero()
    if bad.numel():
        b = int(bad[0])
        raise ShapeError(
            f"lengths[{b}] = {int(lengths[b])}, but utterance {b} of the packed scores has {int(rows[b])} frames",
            argument="lengths",
        )


def check_status(
    values: torch.Tensor, status: torch.Tensor, lengths: torch.Tensor, policy: str, *, infinite: float
) -> None:
    """Acts on what a kernel reported of each utterance.

    Raises NonFiniteScoresError for the first in which it met NaN or +inf. Where there is no path, raises, or puts 0
    ("mask") or `infinite` ("inf") into the values. In the replay of a CUDA graph nothing can be raised: what else is an
    error is NaN there.
    """
    if not is_capturing(status.device):
        if not bool(status.any()):
            return
        _raise_status(status, lengths, policy)
    values.masked_fill_(status < 0, 0.0 if policy == "mask" else infinite)
    if is_capturing(status.device):
        values.masked_fill_((status > 0) | (status == BAD_INPUT), float("nan"))


def _raise_status(status: torch.Tensor, lengths: torch.Tensor, policy: str) -> None:
    bad = (status > 0).nonzero()
    if bad.numel():
        b = int(bad[0])
        frame = int(status[b]) - 1
        raise NonFiniteScoresError(
            f"scores of utterance {b} hold NaN or +inf (or no value above -inf) at frame {frame}; "
            "-inf is a legal score, these are not: look for a diverged model or a masked softmax",
            argument="scores",
            utterance=b,
            frame=frame,
        )
    reason = (
        "no path has exactly that many frames, or every one has probability zero (a score or weight of -inf, or "
        "4e7 below its frame's best)"
    )
    no_path = (status == NO_PATH).nonzero().flatten().tolist()
    raise_infeasible(((b, int(lengths[b]), None, reason) for b in no_path), policy)


def refuse_raising(device: torch.device, policy: str) -> None:
    """Raises CudaError in a capture whose replays would have to raise."""
    if policy == "raise":
        refuse_capture(
            device, "on_infeasible='raise'", "its replays can raise no error",
            "pass on_infeasible='mask' (zero loss and gradient of an utterance without a path) or 'inf'",
        )  # fmt: skip


def raise_infeasible(items: Iterable[tuple[int, int, int | None, str]], policy: str) -> None:
    """Raises InfeasibleError for (utterance, frames, frames needed, reason), if any and if the policy is to."""
    if policy != "raise":
        return
    found = [Infeasible(index, None, frames, needed, reason) for index, frames, needed, reason in items]
    if found:
        raise InfeasibleError(found)


def gradient_layout(scores: torch.Tensor) -> tuple[list[int], list[int]]:
    """Size and strides of the scores' gradient: the scores' own where they are dense, else the nearest dense ones."""
    if scores.is_contiguous():
        return list(scores.shape), list(scores.stride())
    like = torch.empty_like(scores, device="meta")
    return list(scores.shape), list(like.stride())


def new_output(
    size: Sequence[int], dtype: torch.dtype, *, stride: Sequence[int] | None = None
) -> torch.Tensor:
    """Uninitialized memory for an output, in huge pages where page faults would cost more than the arithmetic."""
    output = (
        torch.empty(size, dtype=dtype) if stride is None else torch.empty_strided(size, stride, dtype=dtype)
    )
    bytes_used = output.numel() * output.element_size()  # dense, whatever its strides
    if _SMALLEST_HUGE <= bytes_used <= _LARGEST_HUGE:
        KERNELS.prefer_huge_pages(output.data_ptr(), bytes_used)
    return output


def mark_overwritten(tensor: torch.Tensor) -> None:
    """Tells autograd that a kernel wrote to the tensor, so that whoever saved its old value is refused, not misled."""
    increment_version(tensor)
