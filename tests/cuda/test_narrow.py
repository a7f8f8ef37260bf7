"""The sweep over automata whose states have few arcs, which runs where no gradients of weights are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.ops.cuda.runtime import REDUCTION_BYTES
from seqtrain.ops.cuda.sweep import state_bytes
from tests.cuda.emulation import ORDERS, on_emulated_cuda
from tests.ops.examples import TOPOLOGIES, Batch, random_batch, random_fsa, random_scores, random_topology
from tests.ops.gradient import scores_gradient


def results(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Value, and its gradient to the scores alone."""
    return scores_gradient(
        lambda x: st.full_sum(x, batch.lengths, batch.automata, on_infeasible="mask"), batch.scores
    )


def assert_as_on_the_cpu(batch: Batch) -> None:
    """Both on the emulated block, and where nothing is read ahead as shared memory is too small for that."""
    tolerance = 1e-5 if batch.scores.dtype == torch.float32 else 1e-12
    expected = results(batch)
    for largest_shared in (227 << 10, 256):
        with on_emulated_cuda("shuffled", largest_shared=largest_shared):
            torch.testing.assert_close(results(batch), expected, rtol=tolerance, atol=tolerance)


def chain(random: np.random.Generator, states: int, labels: int) -> Fsa:
    """Of states with loops, as of an HMM."""
    at = np.arange(states)
    label = random.integers(0, labels, size=states + 1)
    arcs = [np.column_stack((at + step, at + 1, label[1:])) for step in (0, 1)]
    weights = torch.from_numpy(random.normal(size=2 * states)).float()
    return Fsa(np.concatenate(arcs), weights, num_states=states + 1, final={states: 0.0})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_topologies(name: str, dtype: torch.dtype) -> None:
    assert_as_on_the_cpu(random_topology(name, 3, dtype=dtype))


@pytest.mark.parametrize("states", [3, 40, 600])
def test_one_and_several_nodes_a_thread(states: int) -> None:
    random = np.random.default_rng(states)
    frames = torch.tensor([states + 7, states + 1])
    automata = FsaBatch.from_list([chain(random, states, 5), chain(random, max(1, states - 9), 5)])
    assert_as_on_the_cpu(Batch(random_scores(random, 2, states + 7, 5), frames, automata))


@pytest.mark.parametrize("seed", range(6))
def test_states_with_several_labels(seed: int) -> None:
    assert_as_on_the_cpu(random_batch(seed, states=6, arcs=9, labels=4))


@pytest.mark.parametrize("frames", [0, 1, 2, 3])
def test_the_halves_of_short_utterances(frames: int) -> None:
    random = np.random.default_rng(frames)
    automata = [random_fsa(random, states=3, arcs=7, labels=3, forbidden=0) for _ in range(8)]
    lengths = torch.full((8,), frames)
    assert_as_on_the_cpu(Batch(random_scores(random, 8, 3, 3), lengths, FsaBatch.from_list(automata)))


def test_every_order_of_threads_leaves_the_same_bits_unless_a_barrier_is_missing() -> None:
    random = np.random.default_rng(1)
    automata = FsaBatch.from_list([chain(random, 100, 5)])
    batch = Batch(random_scores(random, 1, 110, 5), torch.tensor([110]), automata)
    found = {}
    for plant in ("", "barrier"):
        for order in ORDERS:
            with on_emulated_cuda(order, plant=plant) as cuda:
                found[plant, order] = results(batch)
            shared = max(bytes_ for name, *_, bytes_ in cuda.launched if b"sweep" in name)
            assert shared > REDUCTION_BYTES + state_bytes(101, torch.float32)  # something is read ahead
    same = {key: all(map(torch.equal, found["", ORDERS[0]], other)) for key, other in found.items()}
    assert all(same["", order] for order in ORDERS)
    assert not all(same["barrier", order] for order in ORDERS)
