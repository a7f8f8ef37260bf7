"""The full sum over one automaton that all utterances share, several of them side by side; also with a leak.

    denominator(scores (B, T, V) | (ΣT, V), offsets (B + 1,) | None, lengths (B,), <automata, G = 1>, …,
        layout (N,) int32 | None, leak, distribution (S,) | None)
        → what `full_sum` gives for a shared automaton

`layout` is `lay_out`'s, made here where there is none. `leak` and `distribution`: `seqtrain.reference.leaky_full_sum`.
`anchor` is explained in `seqtrain.ops.ctc`.
"""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.infeasible import report_inside
from seqtrain.ops import arguments
from seqtrain.ops.automata import SCHEMA, Automata, Summary, infeasible_items, summarize
from seqtrain.ops.full_sum import check_host_memory, gradients, save_for_gradients
from seqtrain.ops.kernels import KERNELS
from seqtrain.ops.library import LIBRARY, register
from seqtrain.ops.occupancies import register_gradients
from seqtrain.torch_versions import register_autograd

__all__ = ["denominator", "lay_out", "prepare", "summary_of"]

_COLUMNS, _COLUMN_LABELS = 3, 8  # where csrc/recursion/denominator_layout.h has them


def lay_out(automata: Automata) -> torch.Tensor:
    """(N,) int32, what the kernel needs of the structure of one automaton: its arcs, and which weights are -inf.

    Behind it stand the fewest and the most frames that the automaton accepts.
    """
    arrays = automata.for_kernels()
    block = torch.frombuffer(bytearray(KERNELS.lay_out_denominator(arrays.argument())), dtype=torch.int32)
    summary = summarize(arrays)
    return torch.cat((block, summary.fewest.to(torch.int32), summary.most.to(torch.int32)))


def summary_of(layout: torch.Tensor) -> Summary:
    """Of the automaton that was laid out."""
    fewest, most, labels = layout[-2:-1], layout[-1:], layout[_COLUMNS : _COLUMNS + 1]
    return Summary(*(field.to(torch.int64) for field in (fewest, most, labels)))


def prepare(
    automata: Automata,
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    lengths: torch.Tensor,
    layout: torch.Tensor | None,
    leak: float,
    on_infeasible: str,
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Checks what is in host memory. Returns the layout, (B,) status before the recursion, and the number of columns.

    What leaks may end a path anywhere, after any number of frames: how many the automaton accepts says nothing then.
    """
    check_host_memory(automata, scores, offsets, lengths)
    layout = lay_out(automata) if layout is None else layout
    summary = summary_of(layout)
    status, items = infeasible_items(summary, lengths) if leak == 0 else (torch.zeros_like(lengths), [])
    arguments.raise_infeasible(items, on_infeasible)
    return layout, status, int(summary.labels)


def _forward(
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
    automata = Automata(
        arcs, weights, arc_offsets, final_states, final_weights, final_offsets, starts, num_states
    ).for_kernels()
    lengths = arguments.int64(lengths)
    batch = arguments.batch_size(scores, offsets)
    layout, status, width = prepare(automata, scores, offsets, lengths, layout, leak, on_infeasible)
    dtype = arguments.arithmetic_dtype(scores)
    value = torch.zeros(batch, dtype=torch.float64)
    occupancies = arguments.new_output((*scores.shape[:-1], width) if with_scores_gradient else (0,), dtype)
    columns = layout[_COLUMN_LABELS : _COLUMN_LABELS + width].to(torch.int64)[None]
    shape = [
        (batch, count) if with_weights_gradient else (0,) for count in (arcs.shape[0], final_states.shape[0])
    ]
    arc_occupancies, final_occupancies = (torch.zeros(size, dtype=torch.float64) for size in shape)
    target = None if distribution is None else distribution.to(torch.float64).contiguous()
    if batch:
        kernel = KERNELS.denominator_float64 if dtype == torch.float64 else KERNELS.denominator_float32
        kernel(
            arguments.tensor_argument(scores, offsets),
            batch,
            0 if offsets is not None else scores.shape[1],
            lengths.data_ptr(),
            automata.argument(),
            width,
            value.data_ptr(),
            occupancies.data_ptr() if with_scores_gradient else 0,
            arc_occupancies.data_ptr() if with_weights_gradient else 0,
            final_occupancies.data_ptr() if with_weights_gradient else 0,
            status.data_ptr(),
            layout.data_ptr(),
            leak,
            0 if target is None else target.data_ptr(),
            torch.get_num_threads(),
        )
        arguments.check_status(value, status, lengths, on_infeasible, infinite=float("-inf"))
    report_inside(status, count_handle, on_infeasible)
    return (
        value.to(arguments.value_dtype(scores)), occupancies, columns, arc_occupancies, final_occupancies, status
    )  # fmt: skip


def _forward_fake(
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
    dtype = arguments.arithmetic_dtype(scores)
    batch = arguments.batch_size(scores, offsets)
    width = torch.library.get_ctx().new_dynamic_size()
    shape = [
        (batch, count) if with_weights_gradient else (0,) for count in (arcs.shape[0], final_states.shape[0])
    ]
    return (
        scores.new_empty((batch,), dtype=dtype),
        scores.new_empty((*scores.shape[:-1], width) if with_scores_gradient else (0,), dtype=dtype),
        scores.new_empty((1, width), dtype=torch.int64),
        scores.new_empty(shape[0], dtype=torch.float64),
        scores.new_empty(shape[1], dtype=torch.float64),
        scores.new_empty((batch,), dtype=torch.int64),
    )


_NAME = register(
    f"denominator(Tensor scores, Tensor? offsets, Tensor lengths, {SCHEMA}, Tensor? anchor, Tensor? gradient_out, "
    "Tensor? layout, float leak, Tensor? distribution, "
    "bool with_scores_gradient, bool with_weights_gradient, str on_infeasible, int count_handle) "
    "-> (Tensor value, Tensor occupancies, "
    "Tensor column_labels, Tensor arc_occupancies, Tensor final_occupancies, Tensor status)",
    cpu=_forward,
    fake=_forward_fake,
)
register_gradients(
    "denominator", "a leaky sum has no second derivative: only full_sum, without a leak, has one"
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    save_for_gradients(ctx, inputs, output)
    ctx.leak = inputs[14]


def _differentiate(ctx: Any, grad_value: torch.Tensor | None, *_: torch.Tensor | None) -> tuple[Any, ...]:
    return gradients(ctx, grad_value, operator="denominator", num_inputs=20, twice=ctx.leak == 0.0)


register_autograd(_NAME, _differentiate, setup_context=_save, library=LIBRARY)

denominator = torch.ops.seqtrain.denominator
