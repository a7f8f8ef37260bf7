"""What releases of torch have under different names, or not at all: from 1.13 on the same wheel serves them all.

Before 2.4 there are no `register_fake` and `register_autograd`. There an operator gets its derivative as a
`torch.autograd.Function` under the dispatch key Autograd, and no fake kernel: there is no compiler that would call it.
Before 2.0 there is no `torch.func`, and autograd functions have no part in what came before it, nor in forward mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = [
    "FUNCTORCH",
    "FUSED",
    "HAS_COMPILER",
    "HAS_TRANSFORMS",
    "increment_version",
    "inside_transform",
    "is_compiling",
    "register_autograd",
    "register_fake",
    "storage_address",
]

HAS_COMPILER = hasattr(torch.library, "register_fake") and hasattr(torch.library, "register_autograd")
"""Whether operators get fake kernels, so that `torch.compile`, `torch.export` and `torch.library.opcheck` take them."""

HAS_TRANSFORMS = hasattr(torch, "func")
"""Whether autograd functions can take part in `torch.func` and forward mode (`setup_context`, `jvp`, `vmap`)."""

FUNCTORCH: Any = torch._C._functorch
"""What torch tells of tensors inside of transforms; under 1.13 those of the package functorch."""

FUSED: dict[str, Any] = {"fused": True} if HAS_COMPILER else {}
"""An optimizer's option to update all parameters in one kernel, on the CPU, too."""


def _never() -> bool:
    return False


def _increment_version_by_empty_write(tensor: torch.Tensor) -> None:
    """A view shares the counter of what it looks at, and writing nothing to it counts."""
    tensor.detach()[:0].zero_()


is_compiling: Callable[[], bool] = torch.compiler.is_compiling if HAS_COMPILER else _never
"""`torch.compiler.is_compiling`, the function itself where there is one, so that compilers see through it."""

increment_version: Callable[[torch.Tensor], None] = getattr(
    torch.autograd.graph, "increment_version", _increment_version_by_empty_write
)
"""Tells autograd that a tensor was written to (`torch.autograd.graph.increment_version`)."""


def storage_address(tensor: torch.Tensor) -> int:
    """Where the memory begins that the tensor is a view of."""
    storage: Any = getattr(tensor, "untyped_storage", None) or tensor.storage
    return int(storage().data_ptr())


def inside_transform() -> bool:
    """Whether a transform of `torch.func`, or before it of functorch, is being run."""
    if hasattr(FUNCTORCH, "peek_interpreter_stack"):
        return FUNCTORCH.peek_interpreter_stack() is not None
    return bool(FUNCTORCH.are_transforms_active())


def register_fake(name: str, fake: Callable[..., Any], *, library: Any) -> None:
    """Gives the operator `namespace::name` its fake (shape) kernel, where torch has such a thing."""
    if HAS_COMPILER:
        torch.library.register_fake(name, fake, lib=library)


def register_autograd(
    name: str,
    backward: Callable[..., Any],
    *,
    setup_context: Callable[[Any, tuple[Any, ...], Any], None] | None = None,
    library: Any,
) -> None:
    """Gives the operator `namespace::name` its derivative; arguments as of `torch.library.register_autograd`."""
    if HAS_COMPILER:
        torch.library.register_autograd(name, backward, setup_context=setup_context, lib=library)
    else:
        _register_function(name, backward, setup_context, library)


def _register_function(
    name: str,
    backward: Callable[..., Any],
    setup_context: Callable[[Any, tuple[Any, ...], Any], None] | None,
    library: Any,
) -> None:
    namespace, short = name.split("::")
    below_autograd: Any = torch._C._AutoDispatchBelowAutograd
    operator = getattr(getattr(torch.ops, namespace), short)

    def forward(ctx: Any, *inputs: Any) -> Any:
        guard = below_autograd()  # holds as long as it lives: it's no context manager there
        try:
            output = operator(*inputs)
        finally:
            del guard
        if setup_context is not None:
            setup_context(ctx, inputs, output)
        return output

    function = type(
        f"{short}_function",
        (torch.autograd.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(backward)},
    )
    library.impl(short, function.apply, "Autograd")  # type: ignore[attr-defined]
