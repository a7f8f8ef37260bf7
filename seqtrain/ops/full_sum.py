"""The full sum over the paths of automata as operators, with gradients to scores, arc weights and final weights.

    full_sum(scores (B, T, V) | (ΣT, V), offsets (B + 1,) | None, lengths (B,), <automata>, …)
        → value (B,), occupancies (B, T, K), column_labels (G, K), arc_occupancies (ΣA,) | (B, A),
          final_occupancies (ΣF,) | (B, F), status (B,)

K is the largest number of distinct labels of a graph; column k of graph g belongs to label column_labels[g, k], -1
past the last. `anchor` ties the gradient to the scores: the scores themselves where it may be differentiated again
(`seqtrain.ops.full_sum_gradient`), else an empty tensor cut from them, as `seqtrain.ops.ctc` explains.
"""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.errors import DerivativeError, LabelError
from seqtrain.infeasible import report_inside
from seqtrain.ops import arguments
from seqtrain.ops.automata import SCHEMA, Automata, Summary, infeasible_items, summarize
from seqtrain.ops.kernels import KERNELS
from seqtrain.ops.library import LIBRARY, register
from seqtrain.ops.occupancies import register_gradients
from seqtrain.torch_versions import register_autograd

__all__ = [
    "check_host_memory",
    "check_labels",
    "feasible",
    "forward",
    "full_sum",
    "gradients",
    "save_for_gradients",
]


def check_labels(automata: Automata, num_labels: int) -> None:
    """Raises LabelError for the first arc whose label isn't a column of the scores."""
    labels = automata.arcs[:, 2]
    bad = (labels >= num_labels).nonzero()
    if not bad.numel():
        return
    flat = int(bad[0])
    g = int(torch.searchsorted(automata.arc_offsets, flat, right=True)) - 1
    arc, label = flat - int(automata.arc_offsets[g]), int(labels[flat])
    raise LabelError(
        f"arc {arc} of automaton {g} has label {label}, but scores have {num_labels} labels (0 … {num_labels - 1})",
        argument="fsa",
        utterance=g,
        position=arc,
        label=label,
        num_labels=num_labels,
    )


def check_host_memory(
    automata: Automata, scores: torch.Tensor, offsets: torch.Tensor | None, lengths: torch.Tensor
) -> None:
    """Checks what is in host memory: lengths, weights, labels."""
    arguments.check_lengths(lengths, scores, offsets)
    automata.check_weights()
    check_labels(automata, scores.shape[-1])


def feasible(
    automata: Automata,
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    lengths: torch.Tensor,
    on_infeasible: str,
) -> tuple[torch.Tensor, Summary]:
    """`check_host_memory`; then (B,) status before the recursion, and what was found of the automata."""
    check_host_memory(automata, scores, offsets, lengths)
    summary = summarize(automata)
    status, items = infeasible_items(summary, lengths)
    arguments.raise_infeasible(items, on_infeasible)
    return status, summary


def forward(
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
    with_scores_gradient: bool,
    with_weights_gradient: bool,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, ...]:
    """`seqtrain::full_sum` on the CPU."""
    automata = Automata(
        arcs, weights, arc_offsets, final_states, final_weights, final_offsets, starts, num_states
    ).for_kernels()
    lengths = arguments.int64(lengths)
    batch = arguments.batch_size(scores, offsets)
    status, summary = feasible(automata, scores, offsets, lengths, on_infeasible)

    shared = automata.size == 1
    width = int(summary.labels.max()) if automata.size else 0
    dtype = arguments.arithmetic_dtype(scores)
    value = torch.zeros(batch, dtype=torch.float64)
    occupancies = arguments.new_output((*scores.shape[:-1], width) if with_scores_gradient else (0,), dtype)
    columns = torch.full((automata.size, width), -1, dtype=torch.int64)
    per_arc = (batch, arcs.shape[0]) if shared else (arcs.shape[0],)
    per_final = (batch, final_states.shape[0]) if shared else (final_states.shape[0],)
    arc_occupancies = torch.zeros(per_arc if with_weights_gradient else (0,), dtype=torch.float64)
    final_occupancies = torch.zeros(per_final if with_weights_gradient else (0,), dtype=torch.float64)
    if batch:
        kernel = KERNELS.full_sum_float64 if dtype == torch.float64 else KERNELS.full_sum_float32
        kernel(
            arguments.tensor_argument(scores, offsets),
            batch,
            0 if offsets is not None else scores.shape[1],
            lengths.data_ptr(),
            automata.argument(),
            width,
            value.data_ptr(),
            occupancies.data_ptr() if with_scores_gradient else 0,
            columns.data_ptr(),
            arc_occupancies.data_ptr() if with_weights_gradient else 0,
            final_occupancies.data_ptr() if with_weights_gradient else 0,
            status.data_ptr(),
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
    with_scores_gradient: bool,
    with_weights_gradient: bool,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, ...]:
    dtype = arguments.arithmetic_dtype(scores)
    batch = arguments.batch_size(scores, offsets)
    width = torch.library.get_ctx().new_dynamic_size()
    count, shared = starts.shape[0], starts.shape[0] == 1
    num_arcs, num_finals = arcs.shape[0], final_states.shape[0]
    double = torch.float64
    return (
        scores.new_empty((batch,), dtype=dtype),
        scores.new_empty((*scores.shape[:-1], width) if with_scores_gradient else (0,), dtype=dtype),
        scores.new_empty((count, width), dtype=torch.int64),
        scores.new_empty(
            ((batch, num_arcs) if shared else (num_arcs,)) if with_weights_gradient else (0,), dtype=double
        ),
        scores.new_empty(
            ((batch, num_finals) if shared else (num_finals,)) if with_weights_gradient else (0,),
            dtype=double,
        ),
        scores.new_empty((batch,), dtype=torch.int64),
    )


_NAME = register(
    f"full_sum(Tensor scores, Tensor? offsets, Tensor lengths, {SCHEMA}, Tensor? anchor, Tensor? gradient_out, "
    "bool with_scores_gradient, bool with_weights_gradient, str on_infeasible, int count_handle) "
    "-> (Tensor value, Tensor occupancies, "
    "Tensor column_labels, Tensor arc_occupancies, Tensor final_occupancies, Tensor status)",
    cpu=forward,
    fake=_forward_fake,
)
register_gradients("full_sum", "full_sum has no second derivative without its scores: pass them as `anchor`")

# Positions of the inputs that have a gradient.
_SCORES, _WEIGHTS, _FINAL_WEIGHTS = 0, 4, 7


def save_for_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    """Keeps what `gradients` needs."""
    scores, offsets, lengths, *automata = inputs[:11]
    anchor, gradient_out = inputs[11:13]
    _, occupancies, columns, arc_occupancies, final_occupancies, status = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(
        anchor, offsets, lengths, *automata, occupancies, columns, arc_occupancies, final_occupancies, status
    )
    ctx.gradient_out = gradient_out
    ctx.size, ctx.stride = arguments.gradient_layout(scores)


def gradients(
    ctx: Any, grad_value: torch.Tensor | None, *, operator: str, num_inputs: int, twice: bool = True
) -> tuple[Any, ...]:
    """The gradients of the first inputs, which `full_sum` and `denominator` have in common.

    Args:
        ctx: what `save_for_gradients` has kept.
        grad_value: (B,) or None.
        operator: whose backward operators are called.
        num_inputs: of that operator.
        twice: whether the gradients may be differentiated once more.
    """
    found: list[torch.Tensor | None] = [None] * num_inputs
    if grad_value is None:
        return tuple(found)
    (
        anchor, offsets, lengths, *automata, occupancies, columns, arc_occupancies, final_occupancies, status
    ) = ctx.saved_tensors  # fmt: skip
    _, weights, arc_offsets, _, final_weights, final_offsets, _, _ = automata
    ops = torch.ops.seqtrain
    scores_backward, scores_backward_into, weights_backward = (
        getattr(ops, f"{operator}_{part}")
        for part in ("scores_backward", "scores_backward_into", "weights_backward")
    )
    needed = [ctx.needs_input_grad[position] for position in (_SCORES, _WEIGHTS, _FINAL_WEIGHTS)]
    recorded = torch.is_grad_enabled() and ctx.gradient_out is None and list(anchor.shape) == list(ctx.size)
    if recorded and twice:
        differentiable = ops.full_sum_gradient(
            grad_value, anchor, offsets, lengths, *automata, occupancies, columns, arc_occupancies,
            final_occupancies, status, needed[0], needed[1] or needed[2], ctx.size, ctx.stride,
        )  # fmt: skip
        for position, want, gradient in zip(
            (_SCORES, _WEIGHTS, _FINAL_WEIGHTS), needed, differentiable, strict=True
        ):
            found[position] = gradient if want else None
        return tuple(found)
    if ctx.needs_input_grad[_SCORES]:
        common = (grad_value, anchor, weights, offsets, lengths, occupancies, columns, status)
        if ctx.gradient_out is None:
            found[_SCORES] = scores_backward(*common, ctx.size, ctx.stride)
        elif torch.is_grad_enabled():
            raise DerivativeError(
                "create_graph=True and gradient_out exclude each other: the gradient is overwritten"
            )
        else:
            scores_backward_into(*common, ctx.gradient_out)
            arguments.mark_overwritten(ctx.gradient_out)
            found[_SCORES] = ctx.gradient_out
    if ctx.needs_input_grad[_WEIGHTS]:
        found[_WEIGHTS] = weights_backward(grad_value, anchor, weights, arc_occupancies, arc_offsets, status)
    if ctx.needs_input_grad[_FINAL_WEIGHTS]:
        found[_FINAL_WEIGHTS] = weights_backward(
            grad_value, anchor, final_weights, final_occupancies, final_offsets, status
        )
    return tuple(found)


def _differentiate(ctx: Any, grad_value: torch.Tensor | None, *_: torch.Tensor | None) -> tuple[Any, ...]:
    return gradients(ctx, grad_value, operator="full_sum", num_inputs=17)


register_autograd(_NAME, _differentiate, setup_context=save_for_gradients, library=LIBRARY)

full_sum = torch.ops.seqtrain.full_sum
