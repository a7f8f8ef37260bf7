"""The best path against the reference: bit-equal, ties included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain.fsa import Fsa, FsaBatch
from tests.fsa.strategies import automata, quick, score_tables
from tests.ops.exact import assert_best_path_exact
from tests.ops.examples import DTYPES, TOPOLOGIES, random_batch, random_fsa, random_topology


@quick
@given(automata(), score_tables())
def test_any_small_automaton(fsa: Fsa, scores: np.ndarray) -> None:
    frames = torch.from_numpy(scores).float()[None]
    assert_best_path_exact(frames, torch.tensor([len(scores)]), fsa)


@quick
@given(seed=hs.integers(0, 2**32), acyclic=hs.booleans(), dtype=hs.sampled_from(DTYPES))
def test_random_batches(seed: int, acyclic: bool, dtype: torch.dtype) -> None:
    assert_best_path_exact(*random_batch(seed, acyclic=acyclic, dtype=dtype))


@quick
@given(seed=hs.integers(0, 2**32), shared=hs.booleans())
def test_ties(seed: int, shared: bool) -> None:
    """Scores and weights of 0 and 1 alone: nearly every decision is a tie."""
    random = np.random.default_rng(seed)
    graphs = []
    for _ in range(1 if shared else 3):
        graph = random_fsa(random, states=5, arcs=30, labels=3, forbidden=0.0)
        final = (random.permutation(5), torch.from_numpy(random.integers(0, 2, 5)).float())
        weights = torch.from_numpy(random.integers(0, 2, graph.num_arcs)).float()
        graphs.append(Fsa(graph.arcs, weights, num_states=5, start=graph.start, final=final))
    scores = torch.from_numpy(random.integers(0, 2, size=(3, 6, 3))).float()
    lengths = torch.from_numpy(random.integers(0, 7, size=3))
    assert_best_path_exact(scores, lengths, graphs[0] if shared else FsaBatch.from_list(graphs))


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_topologies(name: str) -> None:
    assert_best_path_exact(*random_topology(name, 5))


def test_many_arcs_into_one_state() -> None:
    """More than 2^16 of them, so that the rank of an arc takes more than two bytes."""
    count = 70_000
    arcs = np.zeros((count, 3), dtype=np.int64)
    weights = np.zeros(count)
    weights[[3, 66_000]] = 1.0, 2.0
    fsa = Fsa(arcs, torch.from_numpy(weights), final={0: 0.0})
    found = st.best_path(torch.zeros(1, 3, 1), torch.tensor([3]), fsa)
    assert found.arcs.tolist() == [[66_000] * 3]
    assert found.score.tolist() == [6.0]


def test_the_sum_runs_in_double_precision() -> None:
    """A path that is better by 1e-3 after 1e6 of common score is found in half precision, too."""
    frames = 64
    arcs = [[0, 0, 0], [0, 1, 1], [1, 1, 0]]
    scores = torch.full((1, frames, 2), -20_000.0, dtype=torch.float16)
    fsa = Fsa(arcs, torch.tensor([0.0, 1e-3, 0.0]), final={0: 0.0, 1: 0.0})
    found = st.best_path(scores, torch.tensor([frames]), fsa)
    assert found.states[0, -1] == 1


def test_labels_states_and_arcs_describe_one_path() -> None:
    scores, lengths, graphs = random_topology("hmm", 8)
    found = st.best_path(scores, lengths, graphs)
    for b, length in enumerate(lengths.tolist()):
        table = graphs[b].arcs[found.arcs[b, :length]]
        assert table[:, 1].tolist() == found.states[b, :length].tolist()
        assert table[:, 2].tolist() == found.labels[b, :length].tolist()
        assert table[1:, 0].tolist() == table[:-1, 1].tolist()
        assert table[0, 0] == graphs[b].start
