"""CTC as operators: `ctc_loss`, its gradient, and the gradient written into memory of the caller's.

    ctc_loss(scores (B, T, V) | (ΣT, V), offsets (B + 1,) | None, targets (B, U), lengths (B,), target_lengths (B,), …)
        → loss (B,), occupancies (B, T, 1 + U), normalizer (B, T, 2), status (B,)

`anchor` ties the gradient to the scores, so that a second derivative can't be silently zero. It is the scores
themselves, or an empty tensor cut from them, which keeps nothing alive: then the second derivative is refused. What it
is otherwise, `seqtrain.losses.ctc_second_derivative` says.
"""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.errors import DerivativeError, LabelError, ShapeError
from seqtrain.infeasible import report_inside
from seqtrain.ops import arguments
from seqtrain.ops.kernels import KERNELS
from seqtrain.ops.library import LIBRARY, register
from seqtrain.torch_versions import register_autograd

__all__ = ["ctc_loss", "feasible"]


def _frames_needed(
    targets: torch.Tensor, target_lengths: torch.Tensor, num_labels: int, blank: int
) -> torch.Tensor:
    """Checks the targets; (B,) frames they need: one each, and a blank between two equal neighbours."""
    batch, width = targets.shape
    needed = torch.empty(batch, dtype=torch.int64)
    fault, b, u = KERNELS.check_ctc_targets(
        batch, num_labels, width, targets.data_ptr(), target_lengths.data_ptr(), blank, needed.data_ptr()
    )
    if fault == 0:
        return needed
    if fault == 1:
        raise ShapeError(
            f"target_lengths[{b}] = {int(target_lengths[b])}, but targets have {width} columns (U); "
            "target lengths must lie in 0 … U",
            argument="target_lengths",
        )
    label = int(targets[b, u])
    what = (
        f"is the blank ({blank}), which may not stand in the targets"
        if label == blank
        else f"is not a column of the scores, which have {num_labels} labels (0 … {num_labels - 1})"
    )
    raise LabelError(
        f"targets[{b}, {u}] = {label} {what}",
        argument="targets",
        utterance=b,
        position=u,
        label=label,
        num_labels=num_labels,
    )


def feasible(
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    targets: torch.Tensor,
    lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    blank: int,
    on_infeasible: str,
) -> torch.Tensor:
    """Checks what is in host memory, all int64; (B,) status before the recursion."""
    arguments.check_lengths(lengths, scores, offsets)
    needed = _frames_needed(targets, target_lengths, scores.shape[-1], blank)
    status = torch.zeros(lengths.shape[0], dtype=torch.int64)
    short = lengths < needed
    if bool(short.any()):
        status.masked_fill_(short, arguments.INFEASIBLE)
        arguments.raise_infeasible(
            (
                (int(b), int(lengths[b]), int(needed[b]), f"{int(target_lengths[b])} targets don't fit")
                for b in short.nonzero().flatten()
            ),
            on_infeasible,
        )
    return status


def _forward(
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    targets: torch.Tensor,
    lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    anchor: torch.Tensor | None,
    gradient_out: torch.Tensor | None,
    blank: int,
    normalize: bool,
    with_gradient: bool,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    targets, lengths = arguments.int64(targets), arguments.int64(lengths)
    target_lengths = arguments.int64(target_lengths)
    batch, num_labels = arguments.batch_size(scores, offsets), scores.shape[-1]
    status = feasible(scores, offsets, targets, lengths, target_lengths, blank, on_infeasible)

    dtype = arguments.arithmetic_dtype(scores)
    rows = scores.shape[:-1]
    loss = torch.zeros(batch, dtype=torch.float64)
    occupancies = arguments.new_output((*rows, 1 + targets.shape[1]) if with_gradient else (0,), dtype)
    normalizer = torch.empty((*rows, 2) if normalize else (0,), dtype=dtype)
    if batch:
        kernel = KERNELS.ctc_forward_float64 if dtype == torch.float64 else KERNELS.ctc_forward_float32
        kernel(
            arguments.tensor_argument(scores, offsets),
            batch,
            num_labels,
            0 if offsets is not None else scores.shape[1],
            targets.shape[1],
            targets.data_ptr(),
            lengths.data_ptr(),
            target_lengths.data_ptr(),
            blank,
            normalize,
            loss.data_ptr(),
            occupancies.data_ptr() if with_gradient else 0,
            normalizer.data_ptr() if normalize else 0,
            status.data_ptr(),
            torch.get_num_threads(),
        )
        arguments.check_status(loss, status, lengths, on_infeasible, infinite=float("inf"))
    report_inside(status, count_handle, on_infeasible)
    return loss.to(arguments.value_dtype(scores)), occupancies, normalizer, status


def _forward_fake(
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    targets: torch.Tensor,
    lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    anchor: torch.Tensor | None,
    gradient_out: torch.Tensor | None,
    blank: int,
    normalize: bool,
    with_gradient: bool,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    dtype = arguments.arithmetic_dtype(scores)
    batch, rows = arguments.batch_size(scores, offsets), scores.shape[:-1]
    return (
        scores.new_empty((batch,), dtype=dtype),
        scores.new_empty((*rows, 1 + targets.shape[1]) if with_gradient else (0,), dtype=dtype),
        scores.new_empty((*rows, 2) if normalize else (0,), dtype=dtype),
        scores.new_empty((batch,), dtype=torch.int64),
    )


def _backward_into(
    grad_loss: torch.Tensor,
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    targets: torch.Tensor,
    lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    occupancies: torch.Tensor,
    normalizer: torch.Tensor,
    status: torch.Tensor,
    blank: int,
    normalize: bool,
    gradient: torch.Tensor,
) -> None:
    targets, lengths = arguments.int64(targets), arguments.int64(lengths)
    target_lengths = arguments.int64(target_lengths)
    batch = arguments.batch_size(gradient, offsets)
    if batch == 0:
        return
    weight = grad_loss.to(torch.float64).contiguous()
    double = occupancies.dtype == torch.float64
    target = arguments.tensor_argument(gradient, offsets)
    kernel = KERNELS.ctc_backward_float64 if double else KERNELS.ctc_backward_float32
    kernel(
        arguments.tensor_argument(scores, offsets) if normalize else (0, *target[1:]),
        target,
        batch,
        gradient.shape[-1],
        0 if offsets is not None else gradient.shape[1],
        targets.shape[1],
        targets.data_ptr(),
        lengths.data_ptr(),
        target_lengths.data_ptr(),
        blank,
        normalize,
        weight.data_ptr(),
        occupancies.data_ptr(),
        normalizer.data_ptr(),
        status.data_ptr(),
        torch.get_num_threads(),
    )


def _backward(
    grad_loss: torch.Tensor,
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    targets: torch.Tensor,
    lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    occupancies: torch.Tensor,
    normalizer: torch.Tensor,
    status: torch.Tensor,
    blank: int,
    normalize: bool,
    size: list[int],
    stride: list[int],
) -> torch.Tensor:
    gradient = arguments.new_output(size, scores.dtype, stride=stride)
    _backward_into(
        grad_loss, scores, offsets, targets, lengths, target_lengths, occupancies, normalizer, status,
        blank, normalize, gradient,
    )  # fmt: skip
    return gradient


def _backward_fake(
    grad_loss: torch.Tensor,
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    targets: torch.Tensor,
    lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    occupancies: torch.Tensor,
    normalizer: torch.Tensor,
    status: torch.Tensor,
    blank: int,
    normalize: bool,
    size: list[int],
    stride: list[int],
) -> torch.Tensor:
    return scores.new_empty_strided(size, stride)


_COMMON = (
    "Tensor? offsets, Tensor targets, Tensor lengths, Tensor target_lengths, Tensor occupancies, Tensor normalizer, "
    "Tensor status, int blank, bool normalize"
)
_NAME = register(
    "ctc_loss(Tensor scores, Tensor? offsets, Tensor targets, Tensor lengths, Tensor target_lengths, Tensor? anchor, "
    "Tensor? gradient_out, int blank, bool normalize, bool with_gradient, str on_infeasible, int count_handle) "
    "-> (Tensor loss, Tensor occupancies, Tensor normalizer, Tensor status)",
    cpu=_forward,
    fake=_forward_fake,
)
register(
    f"ctc_loss_backward(Tensor grad_loss, Tensor scores, {_COMMON}, SymInt[] size, SymInt[] stride) -> Tensor",
    cpu=_backward,
    fake=_backward_fake,
)
register(
    f"ctc_loss_backward_into(Tensor grad_loss, Tensor scores, {_COMMON}, Tensor(a!) gradient) -> ()",
    cpu=_backward_into,
    fake=lambda *_: None,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    (scores, offsets, targets, lengths, target_lengths, anchor, gradient_out, blank, normalize, *_) = inputs
    _, occupancies, normalizer, status = output
    ctx.set_materialize_grads(False)
    kept = scores if normalize else anchor
    ctx.save_for_backward(kept, offsets, targets, lengths, target_lengths, occupancies, normalizer, status)
    ctx.blank, ctx.normalize, ctx.gradient_out = blank, normalize, gradient_out
    ctx.size, ctx.stride = arguments.gradient_layout(scores)


def _differentiate(ctx: Any, grad_loss: torch.Tensor | None, *_: torch.Tensor | None) -> tuple[Any, ...]:
    nothing = (None,) * 11
    if grad_loss is None:
        return (None, *nothing)
    kept, offsets, targets, lengths, target_lengths, occupancies, normalizer, status = ctx.saved_tensors
    if ctx.gradient_out is None:
        return (
            torch.ops.seqtrain.ctc_loss_backward(
                grad_loss, kept, offsets, targets, lengths, target_lengths, occupancies, normalizer, status,
                ctx.blank, ctx.normalize, ctx.size, ctx.stride,
            ),
            *nothing,
        )  # fmt: skip
    if torch.is_grad_enabled():
        raise DerivativeError(
            "create_graph=True and gradient_out exclude each other: the gradient is overwritten"
        )
    torch.ops.seqtrain.ctc_loss_backward_into(
        grad_loss, kept, offsets, targets, lengths, target_lengths, occupancies, normalizer, status,
        ctx.blank, ctx.normalize, ctx.gradient_out,
    )  # fmt: skip
    arguments.mark_overwritten(ctx.gradient_out)
    return (ctx.gradient_out, *nothing)


register_autograd(_NAME, _differentiate, setup_context=_save, library=LIBRARY)

ctc_loss = torch.ops.seqtrain.ctc_loss
