"""Posteriors against the reference, dense and compact."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from tests.fsa.strategies import quick
from tests.ops.exact import assert_posteriors_exact
from tests.ops.examples import DTYPES, TOPOLOGIES, offsets_of, packed_rows, random_batch, random_topology
from tests.ops.gradient import scores_gradient


@quick
@given(seed=hs.integers(0, 2**32), acyclic=hs.booleans(), dtype=hs.sampled_from(DTYPES))
def test_random_batches(seed: int, acyclic: bool, dtype: torch.dtype) -> None:
    assert_posteriors_exact(*random_batch(seed, acyclic=acyclic, dtype=dtype))


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_topologies(name: str) -> None:
    assert_posteriors_exact(*random_topology(name, 6))


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_each_frame_sums_to_one(name: str) -> None:
    scores, lengths, graphs = random_topology(name, 7)
    sums = st.posteriors(scores, lengths, graphs).sum(dim=2)
    inside = torch.arange(scores.shape[1]) < lengths[:, None]
    torch.testing.assert_close(sums, inside.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("packed", [False, True])
def test_compact_posteriors_are_the_dense_ones_without_zeros(packed: bool) -> None:
    scores, lengths, graphs = random_topology("hmm", 9)
    given_scores = st.Packed(packed_rows(scores, lengths), offsets_of(lengths)) if packed else scores
    compact = st.compact_posteriors(given_scores, lengths, graphs)
    dense = st.posteriors(scores, lengths, graphs)
    assert torch.equal(compact.value, st.full_sum(scores, lengths, graphs))
    for b, length in enumerate(lengths.tolist()):
        first = int(offsets_of(lengths)[b])
        rows = compact.occupancies[first : first + length] if packed else compact.occupancies[b, :length]
        used = compact.labels[b][compact.labels[b] >= 0]
        assert used.tolist() == sorted(set(graphs[b].arcs[:, 2].tolist()))
        filled = torch.zeros(length, scores.shape[2])
        filled[:, used] = rows[:, : len(used)]
        assert torch.equal(filled, dense[b, :length])


def test_posteriors_are_the_gradient_of_the_full_sum() -> None:
    scores, lengths, graphs = random_topology("ctc", 10)
    _, gradient = scores_gradient(lambda x: st.full_sum(x, lengths, graphs), scores)
    assert torch.equal(st.posteriors(scores, lengths, graphs), gradient)
