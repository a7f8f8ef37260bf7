"""General automata on a device: the host emulation's bits, the same bits in every run, the numbers of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain.fsa import Fsa, FsaBatch
from tests.cuda.emulation import on_emulated_cuda
from tests.ops.exact import trainable
from tests.ops.examples import (
    DTYPES,
    TOPOLOGIES,
    Batch,
    random_batch,
    random_fsa,
    random_scores,
    random_topology,
)


def value_and_gradients(batch: Batch, device: str) -> list[torch.Tensor]:
    """Value, and its gradients to scores, arc weights and final weights, back on the host."""
    leaf = batch.scores.to(device).detach().requires_grad_()
    graphs, weights, final_weights = trainable(batch.automata)
    value = st.full_sum(leaf, batch.lengths, graphs, on_infeasible="mask")
    found = torch.autograd.grad(value.sum(), (leaf, weights, final_weights))
    return [value.detach().cpu(), *(gradient.cpu() for gradient in found)]


def long_hmm(frames: int, phones: int, *, batch: int = 2, labels: int = 300) -> Batch:
    """Left-to-right models as hybrid training has them."""
    random = np.random.default_rng(frames)
    targets = torch.from_numpy(random.integers(0, labels // 3, size=(batch, phones)))
    automata = st.fsa.hmm(
        targets, torch.full((batch,), phones), states_per_label=3,
        transitions=st.fsa.Transitions.from_probabilities(loop=0.5),
    )  # fmt: skip
    return Batch(random_scores(random, batch, frames, labels), torch.full((batch,), frames), automata)


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("states", [9, 80])
def test_the_bits_of_the_host_emulation(dtype: torch.dtype, states: int) -> None:
    batch = random_batch(3, states=states, arcs=5 * states, dtype=dtype)
    with on_emulated_cuda():
        expected = value_and_gradients(batch, "cpu")
    assert same(value_and_gradients(batch, "cuda"), expected)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_bits_of_the_best_path(name: str) -> None:
    batch = random_topology(name, 5)
    on_device = st.best_path(batch.scores.cuda(), *batch[1:])
    on_host = st.best_path(*batch)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(on_device, on_host, strict=True))


@pytest.mark.parametrize("phones", [1, 40, 130, 4000])
def test_the_numbers_of_the_cpu(phones: int) -> None:
    batch = long_hmm(3 * phones + 100, phones)
    for found, expected in zip(
        value_and_gradients(batch, "cuda"), value_and_gradients(batch, "cpu"), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_posteriors_and_their_compact_form() -> None:
    batch = long_hmm(200, 30)
    dense = st.posteriors(batch.scores.cuda(), *batch[1:])
    torch.testing.assert_close(dense.cpu(), st.posteriors(*batch), rtol=1e-5, atol=1e-6)
    compact = st.compact_posteriors(batch.scores.cuda(), *batch[1:])
    for b in range(2):
        used = compact.labels[b] >= 0
        found = dense[b][:, compact.labels[b][used]]
        assert torch.equal(compact.occupancies[b][:, used], found)


def test_a_shared_automaton() -> None:
    random = np.random.default_rng(1)
    fsa = random_fsa(random, states=300, arcs=2000, labels=100)
    scores, lengths = random_scores(random, 4, 60, 100), torch.tensor([60, 0, 1, 33])
    expected = st.full_sum(scores, lengths, fsa, on_infeasible="mask")
    found = st.full_sum(scores.cuda(), lengths, fsa, on_infeasible="mask")
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5)


def test_the_same_bits_in_fifty_runs() -> None:
    batch = long_hmm(400, 60, batch=16)
    first = value_and_gradients(batch, "cuda")
    assert all(same(value_and_gradients(batch, "cuda"), first) for _ in range(49))


def test_a_hundred_thousand_frames() -> None:
    batch = long_hmm(100_000, 100, batch=1, labels=40)
    for found, expected in zip(
        value_and_gradients(batch, "cuda"), value_and_gradients(batch, "cpu"), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_stream_of_its_own() -> None:
    batch = long_hmm(200, 30)
    expected = value_and_gradients(batch, "cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        found = value_and_gradients(batch, "cuda")
    assert same(found, expected)


def test_weights_on_the_device() -> None:
    batch = long_hmm(60, 10)
    expected = value_and_gradients(batch, "cuda")
    weights, final_weights = (
        tensor.cuda().requires_grad_() for tensor in (batch.automata.weights, batch.automata.final_weights)
    )
    graphs = batch.automata.to("cuda").with_weights(weights, final_weights)
    value = st.full_sum(batch.scores.cuda(), batch.lengths, graphs)
    found = torch.autograd.grad(value.sum(), (weights, final_weights))
    assert all(tensor.is_cuda for tensor in found)
    assert same([tensor.cpu() for tensor in found], expected[2:])


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, n, fsa: st.losses.fast_baum_welch_loss(x.log_softmax(-1), n, fsa, reduction="frames"),
        lambda x, n, fsa: st.losses.viterbi_loss(x.log_softmax(-1), n, fsa, reduction="batch"),
        lambda x, n, fsa: st.losses.mmi_loss(x, n, fsa, Fsa([[0, 0, v] for v in range(8)], torch.zeros(8))),
    ],
    ids=["fast_baum_welch", "viterbi", "mmi"],
)
def test_criteria(loss: object) -> None:
    assert callable(loss)
    scores, lengths, automata = random_topology("hmm", 7)
    found = []
    for device in ("cuda", "cpu"):
        leaf = scores.to(device).detach().requires_grad_()
        value = loss(leaf, lengths, automata)
        found.append([value.detach().cpu(), torch.autograd.grad(value.sum(), leaf)[0].cpu()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_every_device() -> None:
    batch = long_hmm(60, 10)
    expected = value_and_gradients(batch, "cuda:0")
    for index in range(torch.cuda.device_count()):
        assert same(value_and_gradients(batch, f"cuda:{index}"), expected)


def test_no_utterances() -> None:
    empty = FsaBatch.from_list([])
    none = torch.zeros(0, dtype=torch.int64)
    assert st.full_sum(torch.zeros(0, 3, 4, device="cuda"), none, empty).shape == (0,)
