"""Shared denominators on a device: the host emulation's bits, the same bits in every run, the numbers of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqtrain as st
from benchmarks.denominator import graph
from seqtrain.fsa import Fsa
from seqtrain.ops.cuda import denominator as on_cuda
from seqtrain.scores import Packed
from tests.cuda.emulation import on_emulated_cuda
from tests.cuda.test_denominator import SUMS, example, same
from tests.ops.exact import trainable
from tests.ops.examples import DTYPES, ergodic, offsets_of, packed_rows, random_scores, random_topology
from tests.ops.gradient import scores_gradient

Example = tuple[torch.Tensor, torch.Tensor, Fsa]


def value_and_gradients(name: str, batch: Example, device: str) -> list[torch.Tensor]:
    """Value, and its gradients to scores, arc weights and final weights, back on the host."""
    scores, lengths, fsa = batch
    leaf = scores.to(device).detach().requires_grad_()
    copy, weights, final_weights = trainable(fsa)
    assert isinstance(copy, Fsa)
    value = SUMS[name](leaf, lengths, copy)
    found = torch.autograd.grad(value.sum(), (leaf, weights, final_weights))
    return [value.detach().cpu(), *(part.cpu() for part in found)]


def large(frames: int, *, states: int = 3000, arcs: int = 30_000, batch: int = 4) -> Example:
    """Label-on-state models as LF-MMI has them."""
    scores = random_scores(np.random.default_rng(frames), batch, frames, states)
    return scores, torch.full((batch,), frames), graph(states, arcs, states)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SUMS)
def test_the_bits_of_the_host_emulation(name: str, dtype: torch.dtype) -> None:
    batch = example(3, dtype=dtype)
    with on_emulated_cuda():
        expected = value_and_gradients(name, batch, "cpu")
    assert same(value_and_gradients(name, batch, "cuda"), expected)


@pytest.mark.parametrize("states", [300, 3000, 20_000])
@pytest.mark.parametrize("name", SUMS)
def test_the_numbers_of_the_cpu(name: str, states: int) -> None:
    """In double there: in float, its own sums over hundreds of arcs are off by up to 2e-5. The largest doesn't fit into
    shared memory."""
    scores, lengths, fsa = large(60, states=states, arcs=10 * states)
    exact = value_and_gradients(name, (scores.double(), lengths, fsa), "cpu")
    for found, expected in zip(value_and_gradients(name, (scores, lengths, fsa), "cuda"), exact, strict=True):
        torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SUMS)
def test_segments_that_are_computed_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = large(300, states=500, arcs=4000)
    expected = value_and_gradients(name, batch, "cuda")
    monkeypatch.setattr(on_cuda, "STORE_BYTES", 0)
    assert same(value_and_gradients(name, batch, "cuda"), expected)


@pytest.mark.parametrize("name", SUMS)
def test_packed_is_padded(name: str) -> None:
    scores, lengths, fsa = example(13, all_final=True)
    value, expected = scores_gradient(lambda x: SUMS[name](x, lengths, fsa), scores.cuda())
    packed, found = scores_gradient(
        lambda x: SUMS[name](Packed(x, offsets_of(lengths)), lengths, fsa),
        packed_rows(scores, lengths).cuda(),
    )
    assert torch.equal(packed, value)
    assert torch.equal(found, packed_rows(expected, lengths))


@pytest.mark.parametrize("name", SUMS)
def test_the_same_bits_in_fifty_runs(name: str) -> None:
    batch = large(200, batch=16)
    first = value_and_gradients(name, batch, "cuda")
    assert all(same(value_and_gradients(name, batch, "cuda"), first) for _ in range(49))


def test_a_hundred_thousand_frames() -> None:
    random = np.random.default_rng(5)
    fsa, frames = ergodic(random, 60, 5, 40), 100_000
    batch = random_scores(random, 1, frames, 40).expand(2, -1, -1).clone(), torch.full((2,), frames), fsa
    for found, expected in zip(
        value_and_gradients("leaky", batch, "cuda"), value_and_gradients("leaky", batch, "cpu"), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_stream_of_its_own() -> None:
    batch = large(100)
    expected = value_and_gradients("leaky", batch, "cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        found = value_and_gradients("leaky", batch, "cuda")
    assert same(found, expected)


def test_weights_and_distribution_on_the_device() -> None:
    scores, lengths, fsa = example(7)
    found = []
    for device in ("cpu", "cuda"):
        weights, final_weights = (
            tensor.to(device).detach().requires_grad_() for tensor in (fsa.weights, fsa.final_weights)
        )
        copy = Fsa(fsa.arcs, weights, num_states=40, start=fsa.start, final=(fsa.final_states, final_weights))
        target = torch.full((40,), 1 / 40, device=device)
        value = st.leaky_full_sum(scores.cuda(), lengths, copy, leak=0.1, distribution=target)
        parts = torch.autograd.grad(value.sum(), (weights, final_weights))
        assert all(part.device.type == device for part in parts)
        found.append([part.cpu() for part in parts])
    assert same(*found)


@pytest.mark.parametrize("kind", [st.losses.MMILoss, st.losses.LFMMILoss], ids=["mmi", "lf_mmi"])
def test_criteria(kind: type[st.losses.MMILoss]) -> None:
    scores, lengths, automata = random_topology("hmm", 7)
    loss = kind(ergodic(np.random.default_rng(9), 16, 8, 8))
    expected = scores_gradient(lambda x: loss(x, lengths, automata), scores)
    found = scores_gradient(lambda x: loss(x, lengths, automata), scores.cuda())
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-5, atol=1e-5)


def test_every_device() -> None:
    batch = example(9)
    expected = value_and_gradients("leaky", batch, "cuda:0")
    for index in range(torch.cuda.device_count()):
        assert same(value_and_gradients("leaky", batch, f"cuda:{index}"), expected)
