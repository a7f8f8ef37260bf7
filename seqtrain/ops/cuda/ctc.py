"""CTC's operators on CUDA: what `seqtrain.ops.ctc` does on the CPU, in six launches and two of the backward pass,
whatever the number of frames.

While a CUDA graph is captured, targets and lengths are on the device, where a seventh checks them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from seqtrain.capture import is_capturing
from seqtrain.infeasible import report_inside
from seqtrain.ops import arguments
from seqtrain.ops.ctc import feasible
from seqtrain.ops.cuda.copies import to_device
from seqtrain.ops.cuda.frames import Frames, captured_frames, checked_frames, frames_again, in_place
from seqtrain.ops.cuda.rows import Rows
from seqtrain.ops.cuda.runtime import Argument, Runtime, threads_for
from seqtrain.ops.cuda.sweep import SLOTS_AHEAD, SWEEP_THREADS, cell_bytes, cells

__all__ = ["backward", "backward_into", "forward"]

_CHECK, _CHECK_THREADS = "ctc_targets", 128
_MOST_PAIRS = 2
"""Of a thread, in registers."""


class _Targets(NamedTuple):
    """int64 (B, U) and (B,): in host memory or, in a capture, on the device."""

    labels: torch.Tensor
    lengths: torch.Tensor

    def on(self, device: torch.device) -> _Targets:
        return _Targets(to_device(self.labels, device), to_device(self.lengths, device))


def _targets(on: Runtime, labels: torch.Tensor, lengths: torch.Tensor) -> _Targets:
    if is_capturing(on.device):
        return _Targets(in_place(on, labels, "targets"), in_place(on, lengths, "target_lengths"))
    return _Targets(arguments.int64(labels), arguments.int64(lengths))


class _Columns(NamedTuple):
    """(B, 1 + U) on the device: blank and the targets, -1 past the last, and which of them have one label."""

    labels: torch.Tensor
    following: torch.Tensor


def _columns(on: Runtime, targets: _Targets, blank: int, num_labels: int) -> _Columns:
    """Of targets on the device."""
    batch, width = targets.labels.shape
    columns = _Columns(
        *(torch.empty((batch, 1 + width), dtype=d, device=on.device) for d in (torch.int64, torch.int32))
    )
    on.launch(
        "ctc_columns", "CtcColumnsProblem", batch, threads_for(1 + width, 512),
        labels=num_labels, max_targets=width, blank=blank, targets=targets.labels, target_lengths=targets.lengths,
        column_labels=columns.labels, following=columns.following,
    )  # fmt: skip
    return columns


def _checked(
    on: Runtime,
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    targets: _Targets,
    lengths: torch.Tensor,
    blank: int,
    on_infeasible: str,
) -> tuple[Frames, torch.Tensor]:
    """The frames, and status (B,) before the recursion, both on the device."""
    if is_capturing(on.device):
        arguments.refuse_raising(on.device, on_infeasible)
        frames, status = captured_frames(on, scores, lengths, offsets)
        on.launch(
            _CHECK, "CtcTargetsProblem", status.shape[0], _CHECK_THREADS,
            labels=scores.shape[-1], max_targets=targets.labels.shape[1], blank=blank, lengths=frames.lengths,
            targets=targets.labels, target_lengths=targets.lengths, status=status,
        )  # fmt: skip
        return frames, status
    on.load(_CHECK)  # a capture may come
    lengths = arguments.int64(lengths)
    offsets = None if offsets is None else arguments.int64(offsets)
    status = feasible(scores, offsets, targets.labels, lengths, targets.lengths, blank, on_infeasible)
    return checked_frames(on, lengths, offsets), to_device(status, on.device)


def _division(on: Runtime, pairs: int, threads: int, real: torch.dtype) -> tuple[int, int]:
    """Pairs of a blank and a label that each thread keeps in registers, 0 where they stay in memory, and the memory of
    a block (csrc/cuda/ctc_sweep.h)."""
    cell = cell_bytes(real)
    of_thread, labels = -(-pairs // threads), 2 * (pairs + 1) * cell
    slot = (3 * pairs * cell + 15) // 16 * 16
    in_registers = labels + SLOTS_AHEAD * slot
    if of_thread <= _MOST_PAIRS and on.fits(in_registers):
        return of_thread, in_registers
    return 0, labels + pairs * cell


def forward(
    on: Runtime,
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
    """`seqtrain::ctc_loss`."""
    batch, width = arguments.batch_size(scores, offsets), targets.shape[1]
    given = _targets(on, targets, target_lengths)
    frames, status = _checked(on, scores, offsets, given, lengths, blank, on_infeasible)
    real = arguments.arithmetic_dtype(scores)
    rows = scores.shape[:-1]
    device = on.device
    occupancies = torch.empty((*rows, 1 + width) if with_gradient else (0,), dtype=real, device=device)
    normalizer = torch.empty((*rows, 2) if normalize else (0,), dtype=real, device=device)
    value = torch.zeros(batch, dtype=torch.float64, device=device)
    if batch:
        given = given.on(device)
        columns = _columns(on, given, blank, scores.shape[-1])
        pass_over = Rows(on, scores, frames, columns.labels, shared_columns=False, normalize=normalize)
        emissions = pass_over.emissions(scores, status, normalizer if normalize else None)
        likelihood = torch.full((batch,), float("-inf"), dtype=torch.float64, device=device)
        pairs = width + 1  # of a blank and a label
        threads = threads_for(pairs, SWEEP_THREADS)
        pairs_of_thread, block_bytes = _division(on, pairs, threads, real)
        workspace = on.workspace(2 * batch, block_bytes)
        problem: dict[str, Argument] = {
            "batch": batch,
            "max_frames": pass_over.max_frames,
            "max_targets": width,
            "offsets": pass_over.offsets,
            "lengths": pass_over.lengths,
            "targets": given.labels,
            "target_lengths": given.lengths,
            "emission": emissions.mantissa,
            "emission_exponent": emissions.exponent,
            "store": cells(pass_over.count, 2 * pairs, real=real, device=device),
            "carry": cells(2 * batch, 2 * pairs, real=real, device=device),
            "log_likelihood": likelihood,
            "row_status": emissions.row_status,
            "status": status,
            "with_gradient": with_gradient,
            "pairs_of_thread": pairs_of_thread,
            "workspace": workspace,
            "occupancies": occupancies if with_gradient else None,
        }
        for phase in (0, 1):
            on.launch(
                f"ctc_sweep_{pass_over.suffix}", "CtcProblem", 2 * batch, threads,
                block_bytes if workspace is None else 0, **problem, phase=phase,
            )  # fmt: skip
        if with_gradient:
            on.launch(
                f"ctc_occupancies_{pass_over.suffix}", "CtcProblem", pass_over.row_blocks,
                threads_for(width + 1, 128),
                **problem, phase=0,
            )  # fmt: skip
        value = pass_over.values(emissions, likelihood, status, sign=-1.0)
        arguments.check_status(value, status, lengths, on_infeasible, infinite=float("inf"))
    report_inside(status, count_handle, on_infeasible)
    return value.to(arguments.value_dtype(scores)), occupancies, normalizer, status


def backward_into(
    on: Runtime,
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
    """`seqtrain::ctc_loss_backward_into`."""
    if arguments.batch_size(gradient, offsets) == 0:
        return
    frames = frames_again(on, gradient, lengths, offsets)
    columns = _columns(on, _targets(on, targets, target_lengths).on(on.device), blank, gradient.shape[-1])
    pass_over = Rows(on, gradient, frames, columns.labels, shared_columns=False, normalize=normalize)
    pass_over.gradient(
        gradient,
        scores if normalize else None,
        occupancies,
        normalizer if normalize else None,
        grad_loss.to(torch.float64).contiguous(),
        status,
        following=columns.following,
        sign=-1.0,
    )


def backward(
    on: Runtime,
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
    """`seqtrain::ctc_loss_backward`."""
    gradient = torch.empty_strided(size, stride, dtype=scores.dtype, device=on.device)
    backward_into(
        on, grad_loss, scores, offsets, targets, lengths, target_lengths, occupancies, normalizer, status,
        blank, normalize, gradient,
    )  # fmt: skip
    return gradient
