"""The registered operators obey the rules that torch's compiler relies on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from seqtrain.fsa import FsaBatch
from tests.ops.examples import (
    Batch,
    CtcBatch,
    offsets_of,
    packed_rows,
    random_ctc_batch,
    random_topology,
)

pytestmark = pytest.mark.torch2

_NO_GRADIENT = ("test_schema", "test_faketensor")
_ALL = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def check(operator: Any, arguments: tuple[Any, ...], tests: Sequence[str]) -> None:
    """`torch.library.opcheck`, which raises on the first violation."""
    torch.library.opcheck(operator, arguments, test_utils=tests)


def tensors(graphs: FsaBatch) -> tuple[torch.Tensor, ...]:
    """The automata in the operators' order."""
    return (
        graphs.arcs,
        graphs.weights,
        graphs.arc_offsets,
        graphs.final_states,
        graphs.final_weights,
        graphs.final_offsets,
        graphs.starts,
        graphs.num_states,
    )


def full(batch: Batch | CtcBatch) -> Any:
    """The batch with as many frames as there are, for each utterance.

    What stands past an end in an operator's inner outputs is undefined, and would differ from run to run.
    """
    return batch._replace(lengths=torch.full_like(batch.lengths, batch.scores.shape[1]))


def forms(batch: Batch | CtcBatch) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """The scores padded, packed, and padded in (T, B, V) order: values and offsets."""
    scores, lengths = batch.scores, batch.lengths
    swapped = scores.transpose(0, 1).contiguous().transpose(0, 1)
    return [(scores, None), (packed_rows(scores, lengths), offsets_of(lengths)), (swapped, None)]


@pytest.fixture(params=["padded", "packed", "frames first"])
def form(request: pytest.FixtureRequest) -> int:
    names = ["padded", "packed", "frames first"]
    return names.index(request.param)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_ctc_loss(form: int, normalize: bool, with_gradient: bool) -> None:
    batch = full(random_ctc_batch(1))
    values, offsets = forms(batch)[form]
    values = values.detach().requires_grad_(with_gradient)
    anchor = values.detach()[:0] if with_gradient else None
    arguments = (
        values, offsets, batch.targets, batch.lengths, batch.target_lengths, anchor, None, 0, normalize,
        with_gradient, "raise", -1,
    )  # fmt: skip
    check(torch.ops.seqtrain.ctc_loss.default, arguments, _ALL)


@pytest.mark.parametrize("into", [False, True])
def test_gradient_of_ctc_loss(form: int, into: bool) -> None:
    batch = full(random_ctc_batch(2))
    values, offsets = forms(batch)[form]
    loss, occupancies, normalizer, status = torch.ops.seqtrain.ctc_loss(
        values, offsets, batch.targets, batch.lengths, batch.target_lengths, values[:0].clone(), None, 0, True,
        True, "raise", -1,
    )  # fmt: skip
    common = (
        torch.ones_like(loss), values, offsets, batch.targets, batch.lengths, batch.target_lengths, occupancies,
        normalizer, status, 0, True,
    )  # fmt: skip
    if into:
        gradient = torch.empty_like(values)
        check(torch.ops.seqtrain.ctc_loss_backward_into.default, (*common, gradient), _NO_GRADIENT)
    else:
        layout = (list(values.shape), list(values.stride()))
        check(torch.ops.seqtrain.ctc_loss_backward.default, (*common, *layout), _NO_GRADIENT)


@pytest.mark.parametrize("with_gradient", [False, True])
def test_full_sum(form: int, with_gradient: bool) -> None:
    batch = full(random_topology("hmm", 1))
    values, offsets = forms(batch)[form]
    values = values.detach().requires_grad_(with_gradient)
    weights = batch.automata.weights.detach().requires_grad_(with_gradient)
    anchor = values.detach()[:0] if with_gradient else None
    graphs = tensors(batch.automata.with_weights(weights))
    arguments = (
        values, offsets, batch.lengths, *graphs, anchor, None, with_gradient, with_gradient, "raise", -1,
    )  # fmt: skip
    check(torch.ops.seqtrain.full_sum.default, arguments, _ALL)


@pytest.mark.parametrize("shared", [False, True])
def test_gradients_of_full_sum(form: int, shared: bool) -> None:
    batch = full(random_topology("ctc", 2, batch=1 if shared else 3))
    values, offsets = forms(batch)[form]
    graphs = tensors(batch.automata)
    value, occupancies, columns, arcs, finals, status = torch.ops.seqtrain.full_sum(
        values, offsets, batch.lengths, *graphs, values[:0].clone(), None, True, True, "raise", -1
    )
    weight = torch.ones_like(value)
    anchor = values[:0].clone()
    common = (weight, anchor, graphs[1], offsets, batch.lengths, occupancies, columns, status)
    layout = (list(values.shape), list(values.stride()))
    check(torch.ops.seqtrain.full_sum_scores_backward.default, (*common, *layout), _NO_GRADIENT)
    into = (*common, torch.empty_like(values))
    check(torch.ops.seqtrain.full_sum_scores_backward_into.default, into, _NO_GRADIENT)
    operator = torch.ops.seqtrain.full_sum_weights_backward.default
    check(operator, (weight, anchor, graphs[1], arcs, graphs[2], status), _NO_GRADIENT)
    check(operator, (weight, anchor, graphs[4], finals, graphs[5], status), _NO_GRADIENT)


@pytest.mark.parametrize("shared", [False, True])
def test_second_derivative_of_full_sum(form: int, shared: bool) -> None:
    batch = full(random_topology("ctc", 2, batch=1 if shared else 3))
    values, offsets = forms(batch)[form]
    graphs = tensors(batch.automata)
    inputs = (values, offsets, batch.lengths, *graphs)
    value, *found, status = torch.ops.seqtrain.full_sum(
        *inputs, values[:0].clone(), None, True, True, "raise", -1
    )
    weight = torch.ones_like(value).requires_grad_()
    layout = (list(values.shape), list(values.stride()))
    arguments = (weight, values.detach().requires_grad_(), *inputs[1:], *found, status, True, True, *layout)
    check(torch.ops.seqtrain.full_sum_gradient.default, arguments, _ALL)
    tangents = (torch.ones_like(values), torch.ones_like(graphs[1]), None)
    arguments = (weight.detach(), *inputs, *tangents, status, True, True, *layout)
    check(torch.ops.seqtrain.full_sum_tangents.default, arguments, _NO_GRADIENT)


@pytest.mark.parametrize("leak", [0.0, 0.1])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_denominator(form: int, with_gradient: bool, leak: float) -> None:
    batch = full(random_topology("ctc", 2))
    values, offsets = forms(batch)[form]
    values = values.detach().requires_grad_(with_gradient)
    graph = tensors(FsaBatch.from_list([batch.automata[0]]))
    weights = graph[1].detach().requires_grad_(with_gradient)
    anchor = values.detach()[:0] if with_gradient else None
    distribution = torch.full((int(graph[7]),), 0.1, dtype=torch.float64) if leak else None
    arguments = (
        values, offsets, batch.lengths, graph[0], weights, *graph[2:], anchor, None, None, leak, distribution,
        with_gradient, with_gradient, "raise", -1,
    )  # fmt: skip
    check(torch.ops.seqtrain.denominator.default, arguments, _ALL)


def test_gradients_of_denominator(form: int) -> None:
    batch = full(random_topology("ctc", 2))
    values, offsets = forms(batch)[form]
    graph = tensors(FsaBatch.from_list([batch.automata[0]]))
    value, occupancies, columns, arcs, finals, status = torch.ops.seqtrain.denominator(
        values,
        offsets,
        batch.lengths,
        *graph,
        values[:0].clone(),
        None,
        None,
        0.0,
        None,
        True,
        True,
        "raise",
        -1,
    )
    weight = torch.ones_like(value)
    anchor = values[:0].clone()
    common = (weight, anchor, graph[1], offsets, batch.lengths, occupancies, columns, status)
    layout = (list(values.shape), list(values.stride()))
    check(torch.ops.seqtrain.denominator_scores_backward.default, (*common, *layout), _NO_GRADIENT)
    into = (*common, torch.empty_like(values))
    check(torch.ops.seqtrain.denominator_scores_backward_into.default, into, _NO_GRADIENT)
    operator = torch.ops.seqtrain.denominator_weights_backward.default
    check(operator, (weight, anchor, graph[1], arcs, graph[2], status), _NO_GRADIENT)
    check(operator, (weight, anchor, graph[4], finals, graph[5], status), _NO_GRADIENT)


def test_best_path(form: int) -> None:
    batch = random_topology("rna", 3)
    values, offsets = forms(batch)[form]
    arguments = (values, offsets, batch.lengths, *tensors(batch.automata), 20, "raise", -1)
    check(torch.ops.seqtrain.best_path.default, arguments, _ALL)


def test_posteriors(form: int) -> None:
    batch = random_topology("linear", 4)
    values, offsets = forms(batch)[form]
    arguments = (values, offsets, batch.lengths, *tensors(batch.automata), "raise", -1)
    check(torch.ops.seqtrain.posteriors.default, arguments, _ALL)


def test_every_operator_is_checked_here() -> None:
    found = {
        name.removeprefix("seqtrain::").split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("seqtrain::")
    }
    assert found == {
        "best_path",
        "ctc_loss",
        "ctc_loss_backward",
        "ctc_loss_backward_into",
        "denominator",
        "denominator_scores_backward",
        "denominator_scores_backward_into",
        "denominator_weights_backward",
        "full_sum",
        "full_sum_gradient",
        "full_sum_tangents",
        "full_sum_scores_backward",
        "full_sum_scores_backward_into",
        "full_sum_weights_backward",
        "intersect",
        "lattice_best_paths",
        "lattice_best_scores",
        "lattice_risk",
        "lattice_risk_risks_backward",
        "lattice_risk_weights_backward",
        "lattice_sample",
        "lattice_total",
        "lattice_total_backward",
        "lattice_trim",
        "posteriors",
    }
