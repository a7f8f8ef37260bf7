"""What a shared denominator is given, on the device: checked in host memory or, in a capture, without a look at it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from seqtrain.capture import refused
from seqtrain.ops import arguments
from seqtrain.ops.automata import Automata, Summary, rejected
from seqtrain.ops.cuda.denominator_layout import DeviceLayout, kept_layout, lay_out_once
from seqtrain.ops.cuda.frames import Frames, captured_frames, checked_frames
from seqtrain.ops.cuda.runtime import Runtime
from seqtrain.ops.denominator import prepare, summary_of
from seqtrain.ops.full_sum import check_labels

__all__ = ["Given", "Weights", "captured", "checked"]

_LEAST_ALONE = -60 * math.log(2.0)
"""Log of a weight, relative to the largest, that a float still holds with all its digits beside those of states."""


class Weights(NamedTuple):
    """float64 on the device.

    Attributes:
        arcs: (A,)
        finals: (F,)
        target: (S,) where to leak to, or None.
        largest, largest_final: of the weights that are used, which the kernels measure the others by.
        alone: whether floats hold the weights of the arcs relative to the largest without exponents of their own.
        taken: where replays read the weights, the two as () tensors; the weights are relative to them then, and the
            numbers 0.
    """

    arcs: torch.Tensor
    finals: torch.Tensor
    target: torch.Tensor | None
    largest: float
    largest_final: float
    alone: bool
    taken: tuple[torch.Tensor, torch.Tensor] | None

    def restore(self, log_likelihood: torch.Tensor, frames: Frames) -> None:
        """Adds what was taken from the weights, one arc a frame and a final state, as the kernels do."""
        if self.taken is not None:
            largest, largest_final = self.taken
            log_likelihood.add_(frames.lengths.to(torch.float64) * largest).add_(largest_final)


class Given(NamedTuple):
    """`status` (B,) is that before the recursion, `width` the number of columns."""

    frames: Frames
    status: torch.Tensor
    width: int
    table: DeviceLayout
    weights: Weights


def _on_device(
    on: Runtime, table: DeviceLayout, automata: Automata, distribution: torch.Tensor | None
) -> Weights:
    copy = table.copies.float64
    return Weights(
        copy("the weights of the arcs", automata.weights, on.device),
        copy("the weights of the final states", automata.final_weights, on.device),
        None if distribution is None else copy("the distribution of the leak", distribution, on.device),
        0.0,
        0.0,
        False,
        None,
    )


def _range(weights: torch.Tensor, used: torch.Tensor) -> tuple[float, bool]:
    """The largest weight, and whether the others are near enough to it to stand alone."""
    if used.numel() == 0:
        return 0.0, True
    least, largest = map(float, torch.aminmax(weights if used.numel() == weights.numel() else weights[used]))
    return largest, least - largest >= _LEAST_ALONE


def _measured(weights: Weights, here: Automata, table: DeviceLayout) -> Weights:
    """By what stands in host memory."""
    largest, alone = _range(here.weights, table.arcs)
    largest_final, _ = _range(here.final_weights, table.finals)
    return weights._replace(largest=largest, largest_final=largest_final, alone=alone)


def checked(
    on: Runtime,
    automata: Automata,
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    lengths: torch.Tensor,
    layout: torch.Tensor | None,
    leak: float,
    distribution: torch.Tensor | None,
    on_infeasible: str,
) -> Given:
    """Looks at lengths and automata in host memory; weights on the device are read back for that."""
    here = automata.for_kernels()
    lengths = arguments.int64(lengths)
    offsets = None if offsets is None else arguments.int64(offsets)
    layout, status, width = prepare(here, scores, offsets, lengths, layout, leak, on_infeasible)
    table = lay_out_once(on, layout, automata.arcs.shape[0])
    weights = _measured(_on_device(on, table, automata, distribution), here, table)
    return Given(checked_frames(on, lengths, offsets), status.to(on.device), width, table, weights)


def _relative(weights: torch.Tensor, used: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights less the largest of those used, and that one; 0 where there is none above -inf."""
    if weights.numel() == 0:
        return weights, weights.new_zeros(())
    largest = weights.masked_fill(used.logical_not(), -torch.inf).max()
    largest = largest.masked_fill(largest == -torch.inf, 0.0)
    return weights - largest, largest


def _sound(weights: Weights) -> torch.Tensor:
    """() whether the recursion can use them."""
    sound = (weights.arcs < torch.inf).all() & (weights.finals < torch.inf).all()
    if weights.target is not None:
        sound &= ((weights.target >= 0.0) & (weights.target < torch.inf)).all()
    return sound


def _measured_in_replays(weights: Weights, table: DeviceLayout) -> Weights:
    arcs, largest = _relative(weights.arcs, table.place_of_arc >= 0)
    finals, largest_final = _relative(weights.finals, table.final_used)
    return weights._replace(arcs=arcs, finals=finals, taken=(largest, largest_final))


def captured(
    on: Runtime,
    automata: Automata,
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    lengths: torch.Tensor,
    layout: torch.Tensor | None,
    leak: float,
    distribution: torch.Tensor | None,
    on_infeasible: str,
) -> Given:
    """Looks at nothing on the device: what can't be used there is `arguments.BAD_INPUT` in replays.

    Raises:
        CudaError: the policy raises; or the calls before have not left what is needed.
    """
    arguments.refuse_raising(on.device, on_infeasible)
    if layout is None or automata.arcs.device.type != "cpu":
        raise refused(
            "the operator seqtrain::denominator takes arcs and their layout in host memory in a capture"
        )
    check_labels(automata, scores.shape[-1])
    table, summary = kept_layout(on, layout), summary_of(layout)
    weights = _on_device(on, table, automata, distribution)
    frames, status = captured_frames(on, scores, lengths, offsets)
    status.masked_fill_(_sound(weights).logical_not(), arguments.BAD_INPUT)
    if leak == 0.0:
        bounds = Summary(*(torch.full_like(frames.lengths, int(field)) for field in summary))
        empty, short, long = rejected(bounds, frames.lengths)
        status.masked_fill_((empty | short | long) & (status == 0), arguments.INFEASIBLE)
    if automata.weights.device.type == automata.final_weights.device.type == "cpu":
        weights = _measured(weights, automata.for_kernels(), table)
    else:
        weights = _measured_in_replays(weights, table)
    return Given(frames, status, int(summary.labels), table, weights)
