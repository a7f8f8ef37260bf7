"""Whether torch's function transforms are at work: `torch.func`, or forward-mode derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from seqtrain import torch_versions
from seqtrain.errors import DerivativeError
from seqtrain.torch_versions import FUNCTORCH, is_compiling

__all__ = [
    "check_transforms",
    "has_tangent",
    "inside_transform",
    "is_mapped",
    "is_transformed",
    "outside_transforms",
    "plain",
]


def check_transforms() -> None:
    """Raises DerivativeError where torch can't take operators of others into its transforms and forward mode."""
    if not torch_versions.HAS_TRANSFORMS:
        raise DerivativeError(
            f"torch {torch.__version__} takes no operator into function transforms or forward mode, as torch 2.0 and "
            "newer do: use torch.autograd (backward, grad)"
        )


def inside_transform() -> bool:
    """Whether a transform of `torch.func` is being run; never in code that is being compiled."""
    return not is_compiling() and torch_versions.inside_transform()


@contextmanager
def outside_transforms() -> Iterator[None]:
    """Suspends the transforms of `torch.func`: inside of them every operation wraps its result, integers too."""
    if not inside_transform():
        yield
        return
    check_transforms()
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack  # loads half of torch.func

    with temporarily_clear_interpreter_stack():
        yield


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """What a transform has wrapped."""
    while is_transformed(tensor):
        tensor = FUNCTORCH.get_unwrapped(tensor)
    return tensor


def has_tangent(tensor: torch.Tensor) -> bool:
    """Whether the tensor carries a forward-mode tangent."""
    if is_compiling():
        return False
    dual = torch.autograd.forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]  # torch has no types here
    return dual.tangent is not None


def is_transformed(tensor: torch.Tensor) -> bool:
    """Whether the tensor stands for others inside of a transform, so that it has no values of its own to look at."""
    if is_compiling():
        return False
    return bool(FUNCTORCH.is_functorch_wrapped_tensor(tensor))


def is_mapped(tensor: torch.Tensor) -> bool:
    """Whether `torch.func.vmap` maps over an axis of the tensor."""
    if is_compiling():
        return False
    return bool(FUNCTORCH.is_batchedtensor(tensor))
