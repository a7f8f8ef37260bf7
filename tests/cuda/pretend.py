"""Tensors that say they are on a CUDA device, on a machine without one: their memory is the host's.

Within `pretended_cuda`, the operators of seqtrain run the CUDA implementations over the host emulation, and torch's run
on the host; but an operation that takes tensors of both sides raises, as it would on a device. Derivatives are out of
reach: torch's engine asks for the device itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from seqtrain.ops.cuda import IMPLEMENTATIONS
from seqtrain.ops.cuda.driver import Driver
from seqtrain.ops.cuda.runtime import Runtime
from tests.cuda.emulation import EmulatedCuda

DEVICE = torch.device("cuda:0")
# These take both sides on a device, too.
_CROSSING = ("aten::_to_copy", "aten::copy_", "aten::index.Tensor", "aten::index")


class PretendedTensor(torch.Tensor):
    """Wraps a tensor of the host."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> PretendedTensor:
        wrapped: PretendedTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]  # of torch
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=DEVICE,
        )  # fmt: skip
        wrapped.inner = inner
        return wrapped

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def tolist(self) -> Any:
        return self.inner.tolist()

    # Torch's own ask for the device itself.
    def __float__(self) -> float:
        return float(self.inner)

    def __invert__(self) -> Any:
        return PretendedTensor(~self.inner)

    def __getitem__(self, index: Any) -> Any:
        return PretendedTensor(self.inner[tree_map(_bare, index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        stranger = (
            isinstance(value, torch.Tensor) and not isinstance(value, PretendedTensor) and value.dim() > 0
        )
        assert not stranger, "a tensor of the host is assigned to one of the device"
        self.inner[tree_map(_bare, index)] = _bare(value)

    def nonzero(self, *, as_tuple: bool = False) -> Any:
        return PretendedTensor(self.inner.nonzero())

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} of a pretended tensor outside of pretended_cuda")


def _bare(value: Any) -> Any:
    return value.inner if isinstance(value, PretendedTensor) else value


class _Pretending(TorchDispatchMode):
    def __init__(self, cuda: EmulatedCuda) -> None:
        super().__init__()
        self.runtime = Runtime(Driver(cuda), DEVICE, lambda: b"image", lambda: 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        pretended = [tensor for tensor in tensors if isinstance(tensor, PretendedTensor)]
        namespace, name = func.name().split("::")
        if namespace == "seqtrain" and pretended:
            with self:
                return IMPLEMENTATIONS[name](self.runtime, *args)
        with self:  # out of an operator, torch's compound functions come as they are
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        there = bool(pretended)
        crossing = func.name() in _CROSSING
        if "device" in kwargs and kwargs["device"] is not None:
            there = torch.device(kwargs["device"]).type == "cuda"
            kwargs["device"] = torch.device("cpu")
        elif pretended and not crossing:
            strangers = [t for t in tensors if not isinstance(t, PretendedTensor) and t.dim() > 0]
            assert not strangers, f"{func.name()} takes tensors of the host and of the device"

        result = func(*tree_map(_bare, args), **tree_map(_bare, kwargs))
        if not there:
            return result.clone() if crossing and isinstance(result, torch.Tensor) else result

        def wrapped(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            own = [tensor for tensor in pretended if tensor.inner is value]
            return own[0] if own else PretendedTensor(value)

        return tree_map(wrapped, result)


@contextlib.contextmanager
def pretended_cuda() -> Iterator[EmulatedCuda]:
    """Within, `tensor.to(DEVICE)` pretends."""
    cuda = EmulatedCuda("shuffled")
    with patch.object(torch.cuda, "_lazy_init", lambda: None), torch.no_grad(), _Pretending(cuda):
        yield cuda
