"""The shared denominator's operator on CUDA: what `seqtrain.ops.denominator` does on the CPU.

Its gradients are those of the full sum: `seqtrain.ops.cuda.full_sum`. Weights on the device are read back for the
checks (not in a capture), and gathered where they are.
"""

from __future__ import annotations

import math

import torch

from seqtrain.capture import is_capturing, refused
from seqtrain.infeasible import report_inside
from seqtrain.ops import arguments
from seqtrain.ops.automata import Automata
from seqtrain.ops.cuda.cluster import cluster_blocks
from seqtrain.ops.cuda.denominator_inputs import Weights, captured, checked
from seqtrain.ops.cuda.denominator_layout import DeviceLayout
from seqtrain.ops.cuda.rows import Rows, suffix
from seqtrain.ops.cuda.runtime import Argument, Runtime, threads_for
from seqtrain.ops.cuda.sweep import SWEEP_THREADS, state_bytes

__all__ = ["STORE_BYTES", "forward", "store_frames"]

_WEIGHT_THREADS, _WEIGHT_BLOCKS = 256, 1024
STORE_BYTES = 2 << 30
"""Of a batch's states; where all of them take more, the others are computed a second time."""


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
    alone: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """exp(weight - largest), or factor · weight, in the order of `item`: mantissas and exponents, or one number."""
    count = (weight if item is None else item).shape[0]
    mantissa = torch.empty(count, dtype=real, device=on.device)
    exponent = None if alone else torch.empty(count, dtype=torch.int32, device=on.device)
    on.launch(
        f"denominator_weights_{suffix(real)}", "DenominatorWeightsProblem",
        min(-(-count // _WEIGHT_THREADS), _WEIGHT_BLOCKS), _WEIGHT_THREADS,
        count=count, item=item, weight=weight, logarithmic=largest is not None, largest=largest or 0.0,
        factor=factor, mantissa=mantissa, exponent=exponent,
    )  # fmt: skip
    return mantissa, exponent


def _weights(
    on: Runtime, weights: Weights, layout: DeviceLayout, leak: float, real: torch.dtype
) -> dict[str, Argument]:
    """The problem's fields that change from call to call."""
    largest, alone = weights.largest, weights.alone
    incoming = _split(on, real, weights.arcs, layout.incoming_arc, largest=largest, alone=alone)
    outgoing = _split(on, real, weights.arcs, layout.outgoing_arc, largest=largest, alone=alone)
    finals = _split(on, real, weights.finals, largest=weights.largest_final)
    leaking: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
    if leak != 0.0 and weights.target is not None:
        leaking = _split(on, real, weights.target, layout.node_state, factor=leak)
    return {
        "incoming_mantissa": incoming[0],
        "incoming_exponent": incoming[1],
        "outgoing_mantissa": outgoing[0],
        "outgoing_exponent": outgoing[1],
        "final_mantissa": finals[0],
        "final_exponent": finals[1],
        "leak_mantissa": leaking[0],
        "leak_exponent": leaking[1],
        "largest_weight": weights.largest,
        "largest_final_weight": weights.largest_final,
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


def _refuse_gradient_in_host_memory(weights: torch.Tensor, wanted: bool, device: torch.device) -> None:
    if wanted and weights.device != device and is_capturing(device):
        raise refused(
            f"weights on {weights.device} can get no gradient in a capture in a CUDA graph, where nothing is copied: "
            f"have them on {device}"
        )


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
    )
    batch, device = arguments.batch_size(scores, offsets), on.device
    _refuse_gradient_in_host_memory(weights, with_weights_gradient, device)
    frames, status, width, table, given = (captured if is_capturing(device) else checked)(
        on, automata, scores, offsets, lengths, layout, leak, distribution, on_infeasible
    )
    real = arguments.arithmetic_dtype(scores)
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
        status.masked_fill_(status == 0, arguments.NO_PATH)
    elif batch:
        pass_over = Rows(on, scores, frames, table.columns, shared_columns=True, normalize=False)
        emissions = pass_over.emissions(scores, status, None)
        likelihood = torch.full((batch,), float("-inf"), dtype=torch.float64, device=device)
        # The smaller the batch, the more processors work on a direction of an utterance.
        together = cluster_blocks(
            2 * batch, table.incoming_arc.shape[0], processors=on.processors, largest=on.largest_cluster
        )
        block_bytes = state_bytes(table.width, real)
        workspace = on.workspace(2 * batch, block_bytes)
        # Beside the states, where there is room: emissions of two frames.
        fetched_bytes = 2 * width * (torch.finfo(real).bits // 8 + 4)
        fetching = workspace is None and on.fits(block_bytes + fetched_bytes)
        # Either direction adds up arcs of its own half of the frames.
        halves = torch.zeros(
            (batch, 2, table.incoming_arc.shape[0]) if with_weights_gradient else (0,),
            dtype=torch.float64, device=device,
        )  # fmt: skip
        problem: dict[str, Argument] = {
            **table.fields,
            **_weights(on, given, table, leak, real),
            **_store(on, batch, frames.longest, table.width, real),
            "batch": batch,
            "max_frames": pass_over.max_frames,
            "offsets": pass_over.offsets,
            "lengths": pass_over.lengths,
            "status": status,
            "emission": emissions.mantissa,
            "emission_exponent": emissions.exponent,
            "emissions_in_shared_memory": fetching,
            "row_status": emissions.row_status,
            "log_likelihood": likelihood,
            "with_gradient": with_gradient,
            "workspace": workspace,
            "occupancies": occupancies if with_gradient else None,
            "arc_occupancies": halves if with_weights_gradient else None,
            "final_occupancies": final_occupancies if with_weights_gradient else None,
        }
        shared_bytes = (block_bytes if workspace is None else 0) + (fetched_bytes if fetching else 0)
        for phase in (0, 1):
            on.launch(
                f"denominator_sweep_{pass_over.suffix}", "DenominatorProblem", 2 * batch * together,
                threads_for(table.width, SWEEP_THREADS), shared_bytes, together,
                **problem, phase=phase,
            )  # fmt: skip
        if with_weights_gradient and arcs.shape[0]:
            sums = halves.sum(1)
            place = table.place_of_arc
            if sums.shape[1]:
                arc_occupancies = sums.index_select(1, place.clamp(min=0)).masked_fill(place < 0, 0.0)
        given.restore(likelihood, frames)
        value = pass_over.values(emissions, likelihood, status, sign=1.0)
    arguments.check_status(value, status, lengths, on_infeasible, infinite=float("-inf"))
    report_inside(status, count_handle, on_infeasible)
    if not with_scores_gradient:
        occupancies = occupancies.new_empty((0,))
    return (
        value.to(arguments.value_dtype(scores)), occupancies, table.columns, arc_occupancies, final_occupancies, status
    )  # fmt: skip
