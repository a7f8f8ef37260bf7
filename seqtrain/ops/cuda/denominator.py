"""The shared denominator's operator on CUDA: what `seqtrain.ops.denominator` does on the CPU.

Its gradients are those of the full sum: `seqtrain.ops.cuda.full_sum`. Weights on the device are read back for the
checks, and gathered where they are.
"""

from __future__ import annotations

import math

import torch

from seqtrain.infeasible import report_inside
from seqtrain.ops import arguments
from seqtrain.ops.automata import Automata
from seqtrain.ops.cuda.denominator_layout import DeviceLayout, lay_out_once
from seqtrain.ops.cuda.frames import checked_frames
from seqtrain.ops.cuda.rows import Rows, suffix
from seqtrain.ops.cuda.runtime import Argument, Runtime, threads_for
from seqtrain.ops.cuda.sweep import SWEEP_THREADS, state_bytes
from seqtrain.ops.denominator import prepare

__all__ = ["STORE_BYTES", "forward", "store_frames"]

_WEIGHT_THREADS, _WEIGHT_BLOCKS = 256, 1024
STORE_BYTES = 2 << 30
"""Of a batch's states; where all of them take more, the others are computed a second time."""


def _largest(weights: torch.Tensor, used: torch.Tensor) -> float:
    if used.numel() == 0:
        return 0.0
    return float((weights if used.numel() == weights.numel() else weights[used]).max())


def store_frames(longest: int, bytes_of_frame: int) -> int:
    """Frames of a segment; below the square root of all, what the segments begin with would take more."""
    half = max(1, (longest + 1) // 2)
    return min(half, max(math.isqrt(half - 1) + 1, STORE_BYTES // max(1, bytes_of_frame)))


def _split(
    on: Runtime,
    real: torch.dtype,
    weight: torch.Tensor,
    item: torch.Tensor | None = None,
    *,
    largest: float | None = None,
    factor: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """exp(weight - largest), or factor · weight, in the order of `item`: mantissas and exponents."""
    count = (weight if item is None else item).shape[0]
    mantissa = torch.empty(count, dtype=real, device=on.device)
    exponent = torch.empty(count, dtype=torch.int32, device=on.device)
    on.launch(
        f"denominator_weights_{suffix(real)}", "DenominatorWeightsProblem",
        min(-(-count // _WEIGHT_THREADS), _WEIGHT_BLOCKS), _WEIGHT_THREADS,
        count=count, item=item, weight=weight, logarithmic=largest is not None, largest=largest or 0.0,
        factor=factor, mantissa=mantissa, exponent=exponent,
    )  # fmt: skip
    return mantissa, exponent


def _weights(
    on: Runtime,
    automata: Automata,
    layout: DeviceLayout,
    leak: float,
    distribution: torch.Tensor | None,
    real: torch.dtype,
) -> dict[str, Argument]:
    """The problem's fields that change from call to call; `automata` are in host memory."""
    weights, final_weights = automata.weights.to(on.device), automata.final_weights.to(on.device)
    largest, largest_final = (
        _largest(automata.weights, layout.arcs), _largest(automata.final_weights, layout.finals)
    )  # fmt: skip
    incoming = _split(on, real, weights, layout.incoming_arc, largest=largest)
    outgoing = _split(on, real, weights, layout.outgoing_arc, largest=largest)
    finals = _split(on, real, final_weights, largest=largest_final)
    leaking: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
    if leak != 0.0 and distribution is not None:
        target = distribution.detach().to(device=on.device, dtype=torch.float64).contiguous()
        leaking = _split(on, real, target, layout.node_state, factor=leak)
    return {
        "incoming_mantissa": incoming[0],
        "incoming_exponent": incoming[1],
        "outgoing_mantissa": outgoing[0],
        "outgoing_exponent": outgoing[1],
        "final_mantissa": finals[0],
        "final_exponent": finals[1],
        "leak_mantissa": leaking[0],
        "leak_exponent": leaking[1],
        "largest_weight": largest,
        "largest_final_weight": largest_final,
    }


def _store(on: Runtime, batch: int, longest: int, width: int, real: torch.dtype) -> dict[str, Argument]:
    """Memory for the states of frames, of either direction."""

    def states(mantissa: str, exponent: str, count: int) -> dict[str, Argument]:
        shape = (2 * batch, count, width)
        return {
            mantissa: torch.empty(shape, dtype=real, device=on.device),
            exponent: torch.empty(shape, dtype=torch.int32, device=on.device),
        }

    segment = store_frames(longest, 2 * batch * width * (torch.finfo(real).bits // 8 + 4))
    segments = -(-max(1, (longest + 1) // 2) // segment)
    return {
        "segment": segment,
        "segments": segments,
        **states("store", "store_exponent", segment),
        **states("checkpoint", "checkpoint_exponent", segments),
        **states("carry", "carry_exponent", 1),
    }


def forward(
    on: Runtime,
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    lengths: torch.Tensor,
    arcs: torch.Tensor,
    weights: torch.Tensor,
    arc_offsets: torch.Tensor,
    final_states: torch.Tensor,
    final_weights: torch.Tensor,
    final_offsets: torch.Tensor,
    starts: torch.Tensor,
    num_states: torch.Tensor,
    anchor: torch.Tensor | None,
    gradient_out: torch.Tensor | None,
    layout: torch.Tensor | None,
    leak: float,
    distribution: torch.Tensor | None,
    with_scores_gradient: bool,
    with_weights_gradient: bool,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, ...]:
    """`seqtrain::denominator`."""
    automata = Automata(
        arcs, weights, arc_offsets, final_states, final_weights, final_offsets, starts, num_states
    ).for_kernels()
    lengths = arguments.int64(lengths)
    offsets = None if offsets is None else arguments.int64(offsets)
    batch, device = arguments.batch_size(scores, offsets), on.device
    layout, status, width = prepare(automata, scores, offsets, lengths, layout, leak, on_infeasible)
    status, real = status.to(device), arguments.arithmetic_dtype(scores)
    table = lay_out_once(on, layout, arcs.shape[0])
    value = torch.zeros(batch, dtype=torch.float64, device=device)
    with_gradient = with_scores_gradient or with_weights_gradient
    occupancies = torch.empty(
        (*scores.shape[:-1], width) if with_gradient else (0,), dtype=real, device=device
    )
    counts = [
        (batch, count) if with_weights_gradient else (0,) for count in (arcs.shape[0], final_states.shape[0])
    ]
    arc_occupancies, final_occupancies = (
        torch.zeros(size, dtype=torch.float64, device=device) for size in counts
    )
    if batch and not table.has_path:
        status[status == 0] = arguments.NO_PATH
    elif batch:
        frames = checked_frames(on, lengths, offsets)
        pass_over = Rows(on, scores, frames, table.columns, shared_columns=True, normalize=False)
        emissions = pass_over.emissions(scores, status, None)
        likelihood = torch.full((batch,), float("-inf"), dtype=torch.float64, device=device)
        block_bytes = state_bytes(table.width, real)
        workspace = on.workspace(2 * batch, block_bytes)
        # Either direction adds up arcs of its own half of the frames.
        halves = torch.zeros(
            (batch, 2, table.incoming_arc.shape[0]) if with_weights_gradient else (0,),
            dtype=torch.float64, device=device,
        )  # fmt: skip
        problem: dict[str, Argument] = {
            **table.fields,
            **_weights(on, automata, table, leak, distribution, real),
            **_store(on, batch, frames.longest, table.width, real),
            "batch": batch,
            "max_frames": pass_over.max_frames,
            "offsets": pass_over.offsets,
            "lengths": pass_over.lengths,
            "status": status,
            "emission": emissions.mantissa,
            "emission_exponent": emissions.exponent,
            "row_status": emissions.row_status,
            "log_likelihood": likelihood,
            "with_gradient": with_gradient,
            "workspace": workspace,
            "occupancies": occupancies if with_gradient else None,
            "arc_occupancies": halves if with_weights_gradient else None,
            "final_occupancies": final_occupancies if with_weights_gradient else None,
        }
        for phase in (0, 1):
            on.launch(
                f"denominator_sweep_{pass_over.suffix}", "DenominatorProblem", 2 * batch,
                threads_for(table.width, SWEEP_THREADS), block_bytes if workspace is None else 0,
                **problem, phase=phase,
            )  # fmt: skip
        if with_weights_gradient and arcs.shape[0]:
            sums = halves.sum(1)
            place = table.place_of_arc
            if sums.shape[1]:
                arc_occupancies = torch.where(place >= 0, sums.index_select(1, place.clamp(min=0)), 0.0)
        value = pass_over.values(emissions, likelihood, status, sign=1.0)
    arguments.check_status(value, status, lengths, on_infeasible, infinite=float("-inf"))
    report_inside(status, count_handle, on_infeasible)
    if not with_scores_gradient:
        occupancies = occupancies.new_empty((0,))
    return (
        value.to(arguments.value_dtype(scores)), occupancies, table.columns, arc_occupancies, final_occupancies, status
    )  # fmt: skip
