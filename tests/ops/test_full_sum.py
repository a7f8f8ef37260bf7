"""The full sum and its gradients against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.fsa import Fsa, FsaBatch
from tests.fsa.strategies import automata, quick, score_tables
from tests.ops.exact import assert_full_sum_exact
from tests.ops.examples import DTYPES, TOPOLOGIES, random_batch, random_fsa, random_scores, random_topology


@quick
@given(automata(), score_tables())
def test_any_small_automaton(fsa: Fsa, scores: np.ndarray) -> None:
    frames = torch.from_numpy(scores).float()[None]
    assert_full_sum_exact(frames, torch.tensor([len(scores)]), fsa)


@quick
@given(automata(dtype=torch.float64), score_tables())
def test_any_small_automaton_in_double_precision(fsa: Fsa, scores: np.ndarray) -> None:
    assert_full_sum_exact(torch.from_numpy(scores)[None], torch.tensor([len(scores)]), fsa)


@quick
@given(seed=hs.integers(0, 2**32), acyclic=hs.booleans(), dtype=hs.sampled_from(DTYPES))
def test_random_batches(seed: int, acyclic: bool, dtype: torch.dtype) -> None:
    assert_full_sum_exact(*random_batch(seed, acyclic=acyclic, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("states", [1, 15, 16, 17, 33, 70])
def test_sizes_around_the_vector_width(states: int, dtype: torch.dtype) -> None:
    batch = random_batch(
        states, states=states, arcs=6 * states, labels=2 * states + 1, frames=12, batch=3, dtype=dtype
    )
    assert_full_sum_exact(*batch)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_topologies(name: str, dtype: torch.dtype) -> None:
    assert_full_sum_exact(*random_topology(name, 3, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("gap", [0.5, 4.8, 20.0])
def test_the_one_path_is_far_below_where_scores_lead(gap: float, dtype: torch.dtype) -> None:
    """A chain that must move on in nearly each frame, and scores that want it to stay."""
    states, frames = 70, 72
    arcs = [[s, d, s] for s in range(states) for d in (s, s + 1)]
    fsa = Fsa(arcs, torch.zeros(len(arcs), dtype=dtype), num_states=states + 1, final={states: 0.0})
    random = np.random.default_rng(1)
    scores = torch.from_numpy(random.normal(size=(1, frames, states))).to(dtype)
    scores[:, :, 0] += gap
    scores[:, frames // 2 :, 1:] -= gap
    assert_full_sum_exact(scores, torch.tensor([frames]), fsa)


@pytest.mark.parametrize("labels", [2, 17, 40])
def test_states_entered_with_many_labels(labels: int) -> None:
    """Each state has an arc from each state with each label: aggregates alone, and every source row scattered."""
    random = np.random.default_rng(labels)
    states = 5
    arcs = [[p, q, v] for p in range(states) for q in range(states) for v in range(labels)]
    weights = torch.from_numpy(random.normal(size=len(arcs))).float()
    fsa = Fsa(arcs, weights, num_states=states, start=2, final={2: -0.5, 4: 0.25})
    assert_full_sum_exact(random_scores(random, 3, 9, labels), torch.tensor([9, 0, 4]), fsa)


def test_parallel_arcs_with_the_same_label() -> None:
    """Hundreds of arcs between the same two states overflow any buffer that counts on distinct ones."""
    random = np.random.default_rng(0)
    arcs = [[0, 1, 1]] * 300 + [[1, 0, 0]] * 129 + [[1, 1, 2]]
    weights = torch.from_numpy(random.normal(size=len(arcs))).float()
    fsa = Fsa(arcs, weights, final={1: 0.0})
    assert_full_sum_exact(random_scores(random, 2, 11, 3), torch.tensor([11, 7]), fsa)


def test_arcs_whose_probabilities_differ_beyond_the_range_of_float() -> None:
    """The sum of e^-300 and e^300 is no overflow, and the small path alone no underflow."""
    arcs = [[0, 1, 0], [0, 1, 1], [1, 1, 2]]
    for weights in ([300.0, -300.0, 0.0], [-300.0, -300.0, -300.0], [250.0, 250.0, 250.0]):
        fsa = Fsa(arcs, torch.tensor(weights))
        scores = random_scores(np.random.default_rng(1), 1, 6, 3, scale=100.0)
        assert_full_sum_exact(scores, torch.tensor([6]), fsa)


@quick
@given(seed=hs.integers(0, 2**32), batch=hs.integers(0, 5))
def test_one_shared_automaton(seed: int, batch: int) -> None:
    random = np.random.default_rng(seed)
    fsa = random_fsa(random, states=6, arcs=25, labels=5)
    lengths = torch.from_numpy(random.integers(0, 8, size=batch))
    assert_full_sum_exact(random_scores(random, batch, 7, 5), lengths, fsa)


def test_automata_of_very_different_size_in_one_batch() -> None:
    random = np.random.default_rng(5)
    graphs = [
        Fsa([], num_states=1),
        random_fsa(random, states=60, arcs=500, labels=30),
        Fsa([[0, 0, 29]]),
        random_fsa(random, states=2, arcs=3, labels=30),
        Fsa([[0, 1, 0]], final={}),
    ]
    scores = random_scores(random, 5, 14, 30)
    assert_full_sum_exact(scores, torch.tensor([0, 14, 9, 3, 2]), FsaBatch.from_list(graphs))


@pytest.mark.parametrize("double_weights", [False, True])
def test_weights_and_scores_of_different_precision(double_weights: bool) -> None:
    batch = random_batch(11, dtype=torch.float32)
    weights = batch.automata.weights.to(torch.float64 if double_weights else torch.float32)
    finals = batch.automata.final_weights.to(weights.dtype)
    assert_full_sum_exact(batch.scores, batch.lengths, batch.automata.with_weights(weights, finals))
