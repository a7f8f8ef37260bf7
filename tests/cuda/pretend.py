"""Tensors that say they are on a CUDA device, on a machine without one: their memory is the host's.

Within `pretended_cuda`, the operators of seqtrain run the CUDA implementations over the host emulation, and torch's run
on the host; but an operation that takes tensors of both sides raises, as it would on a device. Derivatives are out of
reach: torch's engine asks for the device itself.

Within `captured`, what is done is recorded as in a CUDA graph, for replays in the same memory, and what a device
doesn't permit there raises: copies between host and device, and the host's looks at values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from seqtrain.ops import cuda as operators
from seqtrain.ops.cuda.driver import Driver
from seqtrain.ops.cuda.runtime import Runtime
from tests.cuda.emulation import EmulatedCuda

DEVICE = torch.device("cuda:0")
# These take both sides on a device, too.
_CROSSING = ("aten::_to_copy", "aten::copy_", "aten::index.Tensor", "aten::index")
# What the host has to wait for: a value, or a size that depends on values.
_WAITING = (
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "unique",
    "bincount",
)
_UNINITIALIZED = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")


class NotPermittedError(RuntimeError):
    """The device would have refused this in a capture."""


class Capture:
    """What was done within `captured`, with all memory that it needs."""

    now: Capture | None = None

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def record(self, step: Callable[[], object]) -> None:
        self._steps.append(step)

    def replay(self) -> None:
        """Does it again, reading and writing where it did before."""
        for step in self._steps:
            step()


def _permit(what: str, allowed: bool = False) -> None:
    if Capture.now is not None and not allowed:
        raise NotPermittedError(f"{what} in a capture")


def _perform(function: Callable[[], Any], *, uninitialized: bool = False) -> Any:
    """Calls a function of torch; a replay calls it again, and puts the results where the first ones are."""
    found = function()
    if Capture.now is None:
        return found
    places = [leaf for leaf in tree_flatten(found)[0] if isinstance(leaf, torch.Tensor)]

    def poison() -> None:
        for place in places:
            place.fill_(torch.nan if place.is_floating_point() else torch.iinfo(place.dtype).max)

    def again() -> None:
        results = [leaf for leaf in tree_flatten(function())[0] if isinstance(leaf, torch.Tensor)]
        for place, result in zip(places, results, strict=True):
            if place.data_ptr() != result.data_ptr():
                place.copy_(result)

    Capture.now.record(poison if uninitialized else again)
    return found


def _chooses(index: Any) -> bool:
    """Whether an index picks elements by a mask, or by places that the host keeps."""
    return any(
        isinstance(leaf, torch.Tensor) and (leaf.dtype == torch.bool or not isinstance(leaf, PretendedTensor))
        for leaf in tree_flatten(index)[0]
    )


class _RecordedDriver(Driver):
    def launch(self, *arguments: Any) -> None:
        super().launch(*arguments)
        if Capture.now is not None:
            launch = super().launch
            Capture.now.record(lambda: launch(*arguments))


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
        _permit("tolist")
        return self.inner.tolist()

    # Torch's own ask for the device itself.
    def __float__(self) -> float:
        _permit("float")
        return float(self.inner)

    def __invert__(self) -> Any:
        return PretendedTensor(_perform(lambda: ~self.inner))

    def __getitem__(self, index: Any) -> Any:
        _permit("an index by values", not _chooses(index))
        return PretendedTensor(_perform(lambda: self.inner[tree_map(_bare, index)]))

    def __setitem__(self, index: Any, value: Any) -> None:
        stranger = (
            isinstance(value, torch.Tensor) and not isinstance(value, PretendedTensor) and value.dim() > 0
        )
        assert not stranger, "a tensor of the host is assigned to one of the device"
        _permit("an index by values", not _chooses(index))

        def write() -> None:
            self.inner[tree_map(_bare, index)] = _bare(value)

        _perform(write)

    def nonzero(self, *, as_tuple: bool = False) -> Any:
        _permit("nonzero")
        return PretendedTensor(self.inner.nonzero())

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} of a pretended tensor outside of pretended_cuda")


def put(place: torch.Tensor, value: torch.Tensor) -> None:
    """Copies from the host into the memory of a tensor on the device."""
    assert isinstance(place, PretendedTensor)
    _permit("a copy from the host")
    place.inner.copy_(value)


def _bare(value: Any) -> Any:
    return value.inner if isinstance(value, PretendedTensor) else value


class _Pretending(TorchDispatchMode):
    def __init__(self, cuda: EmulatedCuda) -> None:
        super().__init__()
        self.runtime = Runtime(_RecordedDriver(cuda), DEVICE, lambda: b"image", lambda: 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        pretended = [tensor for tensor in tensors if isinstance(tensor, PretendedTensor)]
        namespace, name = func.name().split("::")
        if namespace == "seqtrain" and pretended:
            with self:
                return operators.call(name, self.runtime, *args)
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

        short = name.split(".")[0]
        if pretended or there:
            _permit(func.name(), short not in _WAITING)
            _permit(f"{func.name()} between host and device", there and len(pretended) == len(tensors))
            _permit("an index by values", not short.startswith("index") or not _chooses(args[1:]))
        bare_args, bare_kwargs = tree_map(_bare, args), tree_map(_bare, kwargs)

        def run() -> Any:
            return func(*bare_args, **bare_kwargs)

        result = _perform(run, uninitialized=short in _UNINITIALIZED) if there else run()
        if not there:
            return result.clone() if crossing and isinstance(result, torch.Tensor) else result

        def wrapped(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            own = [tensor for tensor in pretended if tensor.inner is value]
            return own[0] if own else PretendedTensor(value)

        return tree_map(wrapped, result)


@contextlib.contextmanager
def captured() -> Iterator[Capture]:
    """Within, as within `torch.cuda.graph`; use it in `pretended_cuda`."""
    assert Capture.now is None
    Capture.now = Capture()
    try:
        yield Capture.now
    finally:
        Capture.now = None


@contextlib.contextmanager
def pretended_cuda() -> Iterator[EmulatedCuda]:
    """Within, `tensor.to(DEVICE)` pretends."""
    cuda = EmulatedCuda("shuffled")
    with (
        patch.object(torch.cuda, "_lazy_init", lambda: None),
        patch.object(torch.cuda, "is_current_stream_capturing", lambda: Capture.now is not None),
        torch.no_grad(),
        _Pretending(cuda),
    ):
        yield cuda
