"""Expected risk over lattices as an operator, with gradients to weights and risks.

    lattice_risk(<automata>, risks (ΣA,), final_risks (ΣF,), with_gradient, on_infeasible, …)
        → risk (B,), total (B,), arc_posteriors (ΣA,), arc_gradients (ΣA,), final_posteriors (ΣF,),
          final_gradients (ΣF,), status (B,)

The automata are lattices, one an utterance: source < destination on every arc, arcs sorted by source. Labels aren't
read. `risk` and `total` are float64 where weights or risks are, else float32; the arithmetic is float64 always.
"""

from __future__ import annotations

from typing import Any

import torch

from seqtrain.errors import FsaError, Infeasible, InfeasibleError, NonFiniteScoresError, ShapeError
from seqtrain.infeasible import report_inside
from seqtrain.ops import arguments
from seqtrain.ops.automata import SCHEMA, Automata
from seqtrain.ops.kernels import KERNELS
from seqtrain.ops.lattices import check_order
from seqtrain.ops.library import LIBRARY, refuse_derivative, register
from seqtrain.torch_versions import register_autograd

__all__ = ["LARGEST_WEIGHT", "apply_policy", "check_shapes", "lattice_risk", "raise_fault", "value_dtype"]

LARGEST_WEIGHT = 4e7
"""Weights must be below; far below its negative one counts as -inf."""


def value_dtype(*tensors: torch.Tensor) -> torch.dtype:
    """float64 where one of them is, else float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def _check_weight(weight: float, name: str, sequence: int, arc: int | None, state: int | None) -> None:
    if not weight < LARGEST_WEIGHT:
        raise FsaError(
            f"{name} is {weight}; weights must lie below {LARGEST_WEIGHT:g} and not be NaN: did training of the "
            "weights or of what scored the lattice diverge?",
            sequence=sequence, arc=arc, state=state,
        )  # fmt: skip


def raise_fault(
    automata: Automata, risks: torch.Tensor, final_risks: torch.Tensor, b: int, fault: int
) -> None:
    """Says what is wrong with the arc or final state that the kernel found."""
    first, end = automata.arc_offsets[b : b + 2].tolist()
    first_final, end_final = automata.final_offsets[b : b + 2].tolist()
    final_states = automata.final_states[first_final:end_final]
    where = check_order(b, automata.arcs[first:end], final_states, int(automata.num_states[b]), fault)
    if fault > 0:
        arc = fault - 1
        _check_weight(float(automata.weights[first + arc]), f"the weight of {where}", b, arc, None)
        argument, value = "risks", float(risks[first + arc])
    else:
        arc = -1 - fault  # of the final states
        weight = float(automata.final_weights[first_final + arc])
        _check_weight(weight, f"the final weight of {where}", b, None, int(final_states[arc]))
        argument, value = "final_risks", float(final_risks[first_final + arc])
    raise NonFiniteScoresError(
        f"{argument}: the risk of {where} is {value}; risks must be finite",
        argument=argument,
        utterance=b,
        frame=arc,
    )


def check_shapes(automata: Automata, risks: torch.Tensor, final_risks: torch.Tensor) -> None:
    """Raises ShapeError where risks aren't as many as weights, FsaError where a start is no state."""
    for argument, tensor, like in (
        ("risks", risks, automata.weights), ("final_risks", final_risks, automata.final_weights)
    ):  # fmt: skip
        if tensor.shape != like.shape:
            raise ShapeError(
                f"{argument} must have shape {tuple(like.shape)}, one of each weight, got {tuple(tensor.shape)}",
                argument=argument,
            )
    outside = (automata.starts < 0) | (automata.starts >= automata.num_states)
    if bool(outside.any()):
        b = int(outside.nonzero()[0])
        raise FsaError(
            f"the start {int(automata.starts[b])} of lattice {b} is outside its {int(automata.num_states[b])} states",
            sequence=b, state=int(automata.starts[b]),
        )  # fmt: skip


def _forward(
    arcs: torch.Tensor,
    weights: torch.Tensor,
    arc_offsets: torch.Tensor,
    final_states: torch.Tensor,
    final_weights: torch.Tensor,
    final_offsets: torch.Tensor,
    starts: torch.Tensor,
    num_states: torch.Tensor,
    risks: torch.Tensor,
    final_risks: torch.Tensor,
    with_gradient: bool,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, ...]:
    automata = Automata(
        arcs, weights, arc_offsets, final_states, final_weights, final_offsets, starts, num_states
    ).for_kernels()
    check_shapes(automata, risks, final_risks)
    dtype = value_dtype(weights, risks)
    risks, final_risks = (r.detach().to(torch.float64).contiguous() for r in (risks, final_risks))
    batch, double = automata.size, torch.float64
    risk, total = torch.zeros(batch, dtype=double), torch.zeros(batch, dtype=double)
    status, fault = torch.zeros(batch, dtype=torch.int64), torch.zeros(batch, dtype=torch.int64)
    per_arc, per_final = (weights.shape[0], final_weights.shape[0]) if with_gradient else (0, 0)
    by_arc = [arguments.new_output((per_arc,), double) for _ in range(2)]
    by_final = [torch.zeros(per_final, dtype=double) for _ in range(2)]
    if batch:
        KERNELS.lattice_risk(
            automata.argument(),
            risks.data_ptr(),
            final_risks.data_ptr(),
            risk.data_ptr(),
            total.data_ptr(),
            *(t.data_ptr() if with_gradient else 0 for t in (*by_arc, *by_final)),
            status.data_ptr(),
            fault.data_ptr(),
            torch.get_num_threads(),
        )
        if bool(fault.any()):
            b = int(fault.nonzero()[0])
            raise_fault(automata, risks, final_risks, b, int(fault[b]))
    apply_policy(risk, total, status, on_infeasible)
    if with_gradient:
        for b in (status != 0).nonzero().flatten().tolist():  # the kernel left them as they were
            for tensor in by_arc:
                tensor[automata.arc_offsets[b] : automata.arc_offsets[b + 1]] = 0.0
    report_inside(status, count_handle, on_infeasible)
    return risk.to(dtype), total.to(dtype), *by_arc, *by_final, status


def apply_policy(risk: torch.Tensor, total: torch.Tensor, status: torch.Tensor, on_infeasible: str) -> None:
    """Raises for lattices without a path, or gives them their values."""
    dead = status == arguments.NO_PATH
    if not bool(dead.any()):
        return
    if on_infeasible == "raise":
        reason = "its lattice has no path of a probability above zero"
        raise InfeasibleError([Infeasible(int(b), None, 0, None, reason) for b in dead.nonzero().flatten()])
    infinite = on_infeasible == "inf"
    risk.masked_fill_(dead, float("inf") if infinite else 0.0)
    total.masked_fill_(dead, float("-inf") if infinite else 0.0)


def _forward_fake(
    arcs: torch.Tensor,
    weights: torch.Tensor,
    arc_offsets: torch.Tensor,
    final_states: torch.Tensor,
    final_weights: torch.Tensor,
    final_offsets: torch.Tensor,
    starts: torch.Tensor,
    num_states: torch.Tensor,
    risks: torch.Tensor,
    final_risks: torch.Tensor,
    with_gradient: bool,
    on_infeasible: str,
    count_handle: int,
) -> tuple[torch.Tensor, ...]:
    batch, dtype, double = starts.shape[0], value_dtype(weights, risks), torch.float64
    per_arc, per_final = (weights.shape[0], final_weights.shape[0]) if with_gradient else (0, 0)
    return (
        *(weights.new_empty((batch,), dtype=dtype) for _ in range(2)),
        *(weights.new_empty((per_arc,), dtype=double) for _ in range(2)),
        *(weights.new_empty((per_final,), dtype=double) for _ in range(2)),
        weights.new_empty((batch,), dtype=torch.int64),
    )


def _weights_backward(
    grad_risk: torch.Tensor | None,
    grad_total: torch.Tensor | None,
    posteriors: torch.Tensor,
    gradients: torch.Tensor,
    item_offsets: torch.Tensor,
    anchor: torch.Tensor,
) -> torch.Tensor:
    """Of arcs or final states: gradient of the risk · its derivative + gradient of the total · posterior."""
    parts = [
        _times_items(grad, items, item_offsets)
        for grad, items in ((grad_risk, gradients), (grad_total, posteriors))
        if grad is not None
    ]
    return (parts[0] if len(parts) == 1 else parts[0].add_(parts[1])).to(anchor.dtype)


def _times_items(grad: torch.Tensor, items: torch.Tensor, item_offsets: torch.Tensor) -> torch.Tensor:
    """(B,) gradients times the items of each lattice."""
    product = arguments.new_output(items.shape, torch.float64)
    offsets = item_offsets.tolist()
    for b, factor in enumerate(grad.tolist()):
        torch.mul(items[offsets[b] : offsets[b + 1]], factor, out=product[offsets[b] : offsets[b + 1]])
    return product


def _risks_backward(
    grad_risk: torch.Tensor, posteriors: torch.Tensor, item_offsets: torch.Tensor, anchor: torch.Tensor
) -> torch.Tensor:
    return _times_items(grad_risk, posteriors, item_offsets).to(anchor.dtype)


_NAME = register(
    f"lattice_risk({SCHEMA}, Tensor risks, Tensor final_risks, bool with_gradient, str on_infeasible, "
    "int count_handle) -> (Tensor risk, Tensor total, Tensor arc_posteriors, Tensor arc_gradients, "
    "Tensor final_posteriors, Tensor final_gradients, Tensor status)",
    cpu=_forward,
    fake=_forward_fake,
)
_WEIGHTS_BACKWARD = register(
    "lattice_risk_weights_backward(Tensor? grad_risk, Tensor? grad_total, Tensor posteriors, Tensor gradients, "
    "Tensor item_offsets, Tensor anchor) -> Tensor",
    cpu=_weights_backward,
    fake=lambda grad_risk, grad_total, posteriors, gradients, item_offsets, anchor: torch.empty_like(anchor),
)
_RISKS_BACKWARD = register(
    "lattice_risk_risks_backward(Tensor grad_risk, Tensor posteriors, Tensor item_offsets, Tensor anchor) -> Tensor",
    cpu=_risks_backward,
    fake=lambda grad_risk, posteriors, item_offsets, anchor: torch.empty_like(anchor),
)
for _name in (_WEIGHTS_BACKWARD, _RISKS_BACKWARD):
    refuse_derivative(_name, "lattice_risk has no second derivative yet")

# Positions of the inputs that have a gradient.
_WEIGHTS, _FINAL_WEIGHTS, _RISKS, _FINAL_RISKS, _INPUTS = 1, 4, 8, 9, 13


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*(inputs[i] for i in (1, 2, 4, 5, 8, 9)), *output[2:6])


def _differentiate(
    ctx: Any, grad_risk: torch.Tensor | None, grad_total: torch.Tensor | None, *_: torch.Tensor | None
) -> tuple[Any, ...]:
    gradients: list[torch.Tensor | None] = [None] * _INPUTS
    if grad_risk is None and grad_total is None:
        return tuple(gradients)
    weights, arc_offsets, final_weights, final_offsets, risks, final_risks, *outputs = ctx.saved_tensors
    arc_posteriors, arc_gradients, final_posteriors, final_gradients = outputs
    ops = torch.ops.seqtrain
    for position, anchor, posteriors, derivative, offsets in (
        (_WEIGHTS, weights, arc_posteriors, arc_gradients, arc_offsets),
        (_FINAL_WEIGHTS, final_weights, final_posteriors, final_gradients, final_offsets),
    ):
        if ctx.needs_input_grad[position]:
            gradients[position] = ops.lattice_risk_weights_backward(
                grad_risk, grad_total, posteriors, derivative, offsets, anchor
            )
    for position, anchor, posteriors, offsets in (
        (_RISKS, risks, arc_posteriors, arc_offsets),
        (_FINAL_RISKS, final_risks, final_posteriors, final_offsets),
    ):
        if ctx.needs_input_grad[position] and grad_risk is not None:
            gradients[position] = ops.lattice_risk_risks_backward(grad_risk, posteriors, offsets, anchor)
    return tuple(gradients)


register_autograd(_NAME, _differentiate, setup_context=_save, library=LIBRARY)

lattice_risk = torch.ops.seqtrain.lattice_risk
