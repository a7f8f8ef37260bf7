"""CUDA graphs on a device: a training step, forward and backward, replayed with other inputs in the same memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

import seqtrain as st
from seqtrain.errors import CudaError
from seqtrain.fsa import Fsa
from seqtrain.scores import Packed
from tests.cuda.test_denominator import example
from tests.ops.examples import DTYPES, offsets_of, packed_rows, random_ctc_batch

Tensors = Sequence[torch.Tensor]
Step = Callable[[Tensors], list[torch.Tensor]]


def captured(step: Step, inputs: Tensors) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor]]:
    """Warmed up on a stream of its own, as torch's documentation asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step(inputs)
    return graph, found


def assert_replays(step: Step, before: Tensors, after: Tensors) -> list[torch.Tensor]:
    """The bits of eager calls on what stands in the inputs' memory, twice; returns the last ones."""
    inputs = [tensor.cuda() for tensor in before]
    graph, found = captured(step, inputs)
    for given in (before, after, before, after):
        for place, tensor in zip(inputs, given, strict=True):
            place.copy_(tensor)
        graph.replay()
        expected = step([tensor.cuda() for tensor in given])
        torch.cuda.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    return found


def ctc_step(inputs: Tensors) -> list[torch.Tensor]:
    """Loss and gradient of (scores, targets, lengths, target lengths[, offsets])."""
    values, *rest = inputs
    leaf = values.detach().requires_grad_()
    scores = Packed(leaf, rest[3]) if len(rest) > 3 else leaf
    loss = st.ctc_loss(scores, *rest[:3], normalize=True, on_infeasible="mask")
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return [loss.detach(), gradient]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ctc(dtype: torch.dtype) -> None:
    """Utterances that fit at capture are too short in the replay, and the other way round."""
    before, after = (
        random_ctc_batch(seed, batch=16, frames=200, labels=300, targets=40, dtype=dtype) for seed in (1, 2)
    )
    short = after.lengths.clone()
    short[0], short[7] = 20, 0
    found = assert_replays(ctc_step, before, after._replace(lengths=short))
    assert found[0][[0, 7]].tolist() == [0.0, 0.0]
    assert not found[1][[0, 7]].any()


def test_ctc_of_packed_scores() -> None:
    batch, other = (random_ctc_batch(seed, batch=8, frames=100, labels=50, targets=20) for seed in (3, 4))
    lengths = batch.lengths.flip(0)  # as many rows in all
    rows = [packed_rows(x.scores, n) for x, n in ((batch, batch.lengths), (other, lengths))]
    assert_replays(
        ctc_step,
        (rows[0], batch.targets, batch.lengths, batch.target_lengths, offsets_of(batch.lengths)),
        (rows[1], other.targets, lengths, other.target_lengths, offsets_of(lengths)),
    )


def sum_step(name: str, fsa: Fsa) -> Step:
    """Value and gradients of (scores, lengths), or of (scores, lengths, arc weights, final weights)."""

    def step(inputs: Tensors) -> list[torch.Tensor]:
        scores, lengths, *weights = inputs
        leaf = scores.detach().requires_grad_()
        leaves, graph = [leaf], fsa
        if weights:
            leaves += [tensor.detach().requires_grad_() for tensor in weights]
            graph = Fsa._from_checked(
                fsa.arcs, leaves[1], fsa.num_states, fsa.start, fsa.final_states, leaves[2]
            )
            graph.derived = fsa.derived
        if name == "leaky":
            target = st.fsa.stationary_distribution(fsa)
            value = st.leaky_full_sum(
                leaf, lengths, graph, leak=0.1, distribution=target, on_infeasible="mask"
            )
        else:
            value = st.full_sum(leaf, lengths, graph, on_infeasible="mask")
        return [value.detach(), *torch.autograd.grad(value.sum(), leaves)]

    return step


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("name", ["full", "leaky"])
def test_denominators(name: str, trained: bool) -> None:
    scores, lengths, fsa = example(1)
    other = example(1, frames=20)[0].flip(0), lengths.flip(0)
    weights = (fsa.weights, fsa.final_weights)
    others = tuple(2 * tensor - 1 for tensor in weights)
    assert_replays(
        sum_step(name, fsa),
        (scores, lengths, *(weights if trained else ())),
        (*other, *(others if trained else ())),
    )


def test_a_step_of_a_model() -> None:
    """With torch's own layers before the loss, and an optimizer's step behind it."""
    batch = random_ctc_batch(5, batch=8, frames=60, labels=40, targets=10)
    inputs = [tensor.cuda() for tensor in batch]
    torch.manual_seed(1)
    eager, replayed = (torch.nn.Linear(40, 40).cuda() for _ in range(2))
    replayed.load_state_dict(eager.state_dict())
    loss_of = st.losses.CTCLoss(on_infeasible="mask")
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (eager, replayed)]

    def step(at: int, model: torch.nn.Linear) -> torch.Tensor:
        optimizers[at].zero_grad(set_to_none=True)
        loss: torch.Tensor = loss_of(model(inputs[0]), *inputs[1:])
        loss.backward()
        optimizers[at].step()
        return loss.detach()

    start = {name: tensor.clone() for name, tensor in replayed.state_dict().items()}
    graph, _ = captured(lambda _: [step(1, replayed)], inputs)
    replayed.load_state_dict(start)
    for _ in range(5):
        graph.replay()
        step(0, eager)
    for a, b in zip(eager.parameters(), replayed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_refusals_leave_the_device_usable() -> None:
    batch = random_ctc_batch(7)
    inputs = [tensor.cuda() for tensor in batch]
    expected = st.ctc_loss(*inputs)
    for policy, lengths, said in (
        ("raise", inputs[2], "can raise no error"),
        ("mask", batch.lengths, "lengths is on cpu"),
    ):
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            inputs[0] + 1  # torch warns of an empty graph
            with pytest.raises(CudaError, match=said):
                st.ctc_loss(inputs[0], inputs[1], lengths, inputs[3], on_infeasible=policy)
        assert torch.equal(st.ctc_loss(*inputs), expected)


def test_what_cannot_be_used_is_nan() -> None:
    """And no memory fault."""
    batch = random_ctc_batch(9, batch=4, frames=50, labels=20, targets=6)
    inputs = [tensor.cuda() for tensor in batch]
    graph, (loss, gradient) = captured(ctc_step, inputs)
    inputs[2].copy_(torch.tensor([1 << 40, -1, 50, 50]))
    inputs[1][2].fill_(1 << 40)
    graph.replay()
    torch.cuda.synchronize()
    assert loss.isnan().tolist() == [True, True, bool(batch.target_lengths[2] > 0), False]
    assert not gradient[:2].any()
