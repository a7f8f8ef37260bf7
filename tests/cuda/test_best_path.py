"""The search for the best path on the emulated block: the reference's paths, ties and all."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain.errors import InfeasibleError, NonFiniteScoresError
from seqtrain.fsa import Fsa
from seqtrain.scores import Packed
from tests.cuda.emulation import ORDERS, on_emulated_cuda
from tests.fsa.strategies import quick
from tests.ops.exact import assert_best_path_exact
from tests.ops.examples import DTYPES, TOPOLOGIES, offsets_of, packed_rows, random_batch, random_topology


@quick
@given(seed=hs.integers(0, 2**32), acyclic=hs.booleans(), dtype=hs.sampled_from(DTYPES))
def test_random_batches(seed: int, acyclic: bool, dtype: torch.dtype) -> None:
    with on_emulated_cuda("shuffled") as cuda:
        assert_best_path_exact(*random_batch(seed, acyclic=acyclic, dtype=dtype))
    assert len(cuda.launched) == 1


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_topologies(name: str) -> None:
    with on_emulated_cuda("descending"):
        assert_best_path_exact(*random_topology(name, 3))


@pytest.mark.parametrize("seed", range(4))
def test_ties(seed: int) -> None:
    scores, lengths, automata = random_batch(seed, arcs=80)
    weights = torch.where(automata.weights.isfinite(), 0.0, automata.weights)
    flat = automata.with_weights(weights, torch.zeros_like(automata.final_weights))
    with on_emulated_cuda("descending"):
        assert_best_path_exact(torch.zeros_like(scores), lengths, flat)


def test_an_automaton_that_all_share() -> None:
    fsa = Fsa([[0, 1, 1], [1, 1, 2], [1, 0, 0]], [0.0, -0.5, 0.25], final={1: 0.0})
    with on_emulated_cuda():
        assert_best_path_exact(torch.randn(3, 9, 3), torch.tensor([9, 1, 4]), fsa)


def test_packed_scores() -> None:
    scores, lengths, automata = random_topology("hmm", 5)
    with on_emulated_cuda():
        expected = st.best_path(scores, lengths, automata)
        packed = Packed(packed_rows(scores, lengths), offsets_of(lengths))
        found = st.best_path(packed, lengths, automata)
    assert torch.equal(found.score, expected.score)
    assert torch.equal(found.labels, expected.labels[:, : int(lengths.max())])


def test_more_states_than_fit_into_shared_memory() -> None:
    batch = random_batch(7, states=80, arcs=400)
    with on_emulated_cuda() as shared:
        expected = st.best_path(*batch, on_infeasible="mask")
    with on_emulated_cuda(largest_shared=256) as small:
        found = st.best_path(*batch, on_infeasible="mask")
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert small.launched[0][3] == 256 < shared.launched[0][3]


def test_a_missing_barrier_is_caught() -> None:
    batch = random_batch(11, states=80, arcs=400)
    found = []
    for order in ORDERS:
        with on_emulated_cuda(order, plant="barrier"):
            found.append(st.best_path(*batch, on_infeasible="inf").score)
    assert not all(torch.equal(found[0], other) for other in found[1:])


def test_errors_are_those_of_the_cpu() -> None:
    scores, lengths, automata = random_topology("hmm", 9)
    with on_emulated_cuda():
        bad = scores.clone()
        bad[2, 5] = float("nan")
        bad[2, 9] = float("inf")
        with pytest.raises(NonFiniteScoresError, match=r"utterance 2 hold NaN.* at frame 5"):
            st.best_path(bad, lengths, automata)
        scores[1] = float("-inf")
        with pytest.raises(InfeasibleError, match="utterance 1"):
            st.best_path(scores, lengths, automata)
