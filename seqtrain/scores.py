"""Scores as every criterion takes them, padded or packed, and the checks that need no look at their values."""

from __future__ import annotations

from typing import NamedTuple

import torch

from seqtrain.capture import check_readable, is_capturing, refuse_capture
from seqtrain.errors import ArgumentError, DerivativeError, DeviceError, DtypeError, ShapeError
from seqtrain.torch_versions import is_compiling, storage_address
from seqtrain.transforms import has_tangent, is_mapped, is_transformed

__all__ = [
    "FLOATS",
    "INTEGERS",
    "Packed",
    "Scores",
    "check_derivative",
    "check_gradient_out",
    "check_policy",
    "check_scores",
    "derivative_anchor",
    "host_integers",
    "integers_beside",
    "split_scores",
]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_POLICIES = ("raise", "mask", "inf")


class Packed(NamedTuple):
    """Scores of a batch without padding: the frames of all utterances one after the other.

    Attributes:
        values: (ΣT, V) float.
        offsets: (B + 1,) int; utterance b has the rows offsets[b] … offsets[b + 1].
    """

    values: torch.Tensor
    offsets: torch.Tensor

    @property
    def lengths(self) -> torch.Tensor:
        """(B,) frames of each utterance."""
        return self.offsets[1:] - self.offsets[:-1]


Scores = torch.Tensor | Packed


def split_scores(scores: Scores) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The values and, of packed scores, the offsets as contiguous int64."""
    if isinstance(scores, Packed):
        offsets = integers_beside(scores.values, scores.offsets, "offsets", (None,))
        if offsets.shape[0] < 1:
            raise ShapeError("offsets must have B + 1 entries, got none", argument="offsets")
        return scores.values, offsets.to(torch.int64).contiguous()
    return scores, None


def check_scores(values: torch.Tensor, offsets: torch.Tensor | None, *, cuda: bool = False) -> None:
    """Raises ShapeError, DtypeError or DeviceError where (B, T, V) or packed (ΣT, V) scores can't be used.

    `cuda` tells that there are kernels for CUDA too.
    """
    if not isinstance(values, torch.Tensor):
        raise DtypeError(f"scores must be a torch.Tensor, got {type(values).__name__}", argument="scores")
    expected = "(B, T, V)" if offsets is None else "(ΣT, V)"
    dimensions = 3 if offsets is None else 2
    if values.dim() != dimensions:
        raise ShapeError(
            f"scores must have {dimensions} dimensions {expected}, got shape {tuple(values.shape)}",
            argument="scores",
        )
    if values.shape[-1] < 1:
        raise ShapeError(
            f"scores need at least one label (V), got shape {tuple(values.shape)}", argument="scores"
        )
    if values.dtype not in FLOATS:
        raise DtypeError(
            f"scores must be float16, bfloat16, float32 or float64, got {values.dtype}", argument="scores"
        )
    if values.device.type != "cpu" and not (cuda and values.device.type == "cuda"):
        raise DeviceError(
            f"scores are on {values.device}, and this version has kernels for the CPU alone: pass scores.cpu()",
            argument="scores",
        )


def check_derivative(*tensors: torch.Tensor) -> None:
    """Raises DerivativeError in forward mode and inside of torch.func's transforms, for what has no part in either.

    Without this, a tangent would silently be lost.
    """
    for tensor in tensors:
        if is_mapped(tensor):
            raise DerivativeError(
                "torch.func.vmap doesn't reach this operator: make the mapped axis a part of the batch"
            )
        if is_transformed(tensor):
            raise DerivativeError(
                "torch.func's derivatives don't reach this operator: use torch.autograd (backward, grad)"
            )
        if has_tangent(tensor):
            raise DerivativeError("there is no forward-mode derivative: use torch.autograd (backward, grad)")


def derivative_anchor(values: torch.Tensor, gradient_out: torch.Tensor | None) -> torch.Tensor:
    """What ties a gradient to the scores: they themselves where it can be differentiated again.

    Compiled code has no second derivative, and neither has a gradient that is written over: there it's an empty part of
    the scores, which keeps no memory alive.
    """
    return values[:0].clone() if is_compiling() or gradient_out is not None else values


def _check_integers(tensor: torch.Tensor, argument: str, shape: tuple[int | None, ...]) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise DtypeError(f"{argument} must be a torch.Tensor, got {type(tensor).__name__}", argument=argument)
    if is_mapped(tensor):
        raise ArgumentError(
            f"{argument} can't be mapped by torch.func.vmap: only scores and weights can, the rest is one for all",
            argument=argument,
        )
    if tensor.dtype not in INTEGERS:
        raise DtypeError(f"{argument} must be an integer tensor, got {tensor.dtype}", argument=argument)
    fits = tensor.dim() == len(shape) and all(
        want is None or want == have for want, have in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ShapeError(
            f"{argument} must have shape ({wanted}), got {tuple(tensor.shape)}", argument=argument
        )
    if tensor.device.type == "meta":
        raise DeviceError(f"{argument} is on the device meta, which holds no values", argument=argument)


def host_integers(tensor: torch.Tensor, argument: str, shape: tuple[int | None, ...]) -> torch.Tensor:
    """The tensor in host memory; raises where it isn't an integer one of the shape (None: any size)."""
    _check_integers(tensor, argument, shape)
    if tensor.device.type != "cpu":
        refuse_capture(
            tensor.device, f"a look at {argument} on {tensor.device}", "it waits for the device",
            f"compute this outside of the capture, or pass {argument}.cpu(), made before it",
        )  # fmt: skip
    return tensor.to("cpu")


def integers_beside(
    values: torch.Tensor, tensor: torch.Tensor, argument: str, shape: tuple[int | None, ...]
) -> torch.Tensor:
    """`host_integers`; but in a capture of a CUDA graph on the device of `values`, where replays read it."""
    if not isinstance(values, torch.Tensor) or not is_capturing(values.device):
        return host_integers(tensor, argument, shape)
    _check_integers(tensor, argument, shape)
    check_readable(tensor, values.device, argument)
    return tensor


def check_policy(on_infeasible: str) -> None:
    """Raises ArgumentError for an unknown policy."""
    if on_infeasible not in _POLICIES:
        raise ArgumentError(
            f"on_infeasible must be one of {', '.join(map(repr, _POLICIES))}, got {on_infeasible!r}",
            argument="on_infeasible",
        )


def check_gradient_out(gradient_out: torch.Tensor | None, values: torch.Tensor) -> None:
    """Raises where the memory for the gradient isn't like the scores."""
    if gradient_out is None:
        return
    if not isinstance(gradient_out, torch.Tensor):
        raise DtypeError(
            f"gradient_out must be a torch.Tensor, got {type(gradient_out).__name__}", argument="gradient_out"
        )
    if is_compiling():
        raise ArgumentError(
            "gradient_out can't be used in compiled code: leave it out, the compiler plans memory itself",
            argument="gradient_out",
        )
    if gradient_out.shape != values.shape:
        raise ShapeError(
            f"gradient_out must have the scores' shape {tuple(values.shape)}, got {tuple(gradient_out.shape)}",
            argument="gradient_out",
        )
    if gradient_out.dtype != values.dtype:
        raise DtypeError(
            f"gradient_out must have the scores' dtype {values.dtype}, got {gradient_out.dtype}",
            argument="gradient_out",
        )
    if gradient_out.device != values.device:
        raise DeviceError(
            f"gradient_out is on {gradient_out.device}, the scores on {values.device}",
            argument="gradient_out",
        )
    if any(
        stride == 0 and size > 1
        for stride, size in zip(gradient_out.stride(), gradient_out.shape, strict=True)
    ):
        raise ShapeError(
            f"gradient_out has several elements in one place (strides {gradient_out.stride()}): pass memory of its own",
            argument="gradient_out",
        )
    shared = storage_address(gradient_out) == storage_address(values)
    same = gradient_out.data_ptr() == values.data_ptr() and gradient_out.stride() == values.stride()
    if shared and gradient_out.numel() and not same:
        raise ShapeError(
            "gradient_out lies in the scores' memory without being the scores: pass the scores themselves (detached), "
            "or memory of its own",
            argument="gradient_out",
        )
