"""Best-path training: values against the reference, gradients along the path, utterances without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain import reference
from seqtrain.errors import ArgumentError, InfeasibleError
from seqtrain.losses import ViterbiLoss, viterbi_loss
from tests.fsa.strategies import quick
from tests.ops.examples import DTYPES, TOPOLOGIES, offsets_of, packed_rows, random_topology
from tests.ops.gradient import gradient, scores_gradient


@quick
@given(seed=hs.integers(0, 2**32), name=hs.sampled_from(TOPOLOGIES), dtype=hs.sampled_from(DTYPES))
def test_value_and_gradient(seed: int, name: str, dtype: torch.dtype) -> None:
    """-max over the paths, and -1 at each label of the best path."""
    scores, lengths, graphs = random_topology(name, seed, dtype=dtype)
    loss, found = scores_gradient(lambda x: viterbi_loss(x, lengths, graphs), scores)
    path = st.best_path(scores, lengths, graphs)
    for b, length in enumerate(lengths.tolist()):
        best = reference.best_path(scores[b, :length].double().numpy(), graphs[b])
        assert loss[b].item() == pytest.approx(-best.score, rel=1e-5, abs=1e-5)
        expected = torch.zeros_like(scores[b])
        expected[torch.arange(length), path.labels[b, :length]] = -1.0
        assert torch.equal(found[b], expected)
    assert found.dtype == dtype


def test_packed_is_padded() -> None:
    scores, lengths, graphs = random_topology("hmm", 1)
    packed = packed_rows(scores, lengths).requires_grad_()
    losses = viterbi_loss(st.Packed(packed, offsets_of(lengths)), lengths, graphs)
    padded, expected = scores_gradient(lambda x: viterbi_loss(x, lengths, graphs), scores)
    assert torch.equal(losses, padded)
    assert torch.equal(gradient(losses, packed), packed_rows(expected, lengths))


def test_scaling_and_weights_of_utterances() -> None:
    scores, lengths, graphs = random_topology("hmm", 2, dtype=torch.float64)
    leaf = scores.requires_grad_()
    losses = viterbi_loss(leaf, lengths, graphs)
    once = gradient(losses, leaf)
    losses = viterbi_loss(leaf, lengths, graphs)
    weights = torch.tensor([0.5, 2.0, -3.0], dtype=torch.float64)
    assert torch.equal(gradient(losses, leaf, weights), weights[:, None, None] * once)


def test_gradcheck_where_the_path_is_unique() -> None:
    scores, lengths, graphs = random_topology("ctc", 3, batch=2, frames=8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: viterbi_loss(x, lengths, graphs), (scores.requires_grad_(),))


@pytest.mark.parametrize(("policy", "value"), [("mask", 0.0), ("inf", np.inf)])
def test_without_a_path(policy: str, value: float) -> None:
    scores, lengths, graphs = random_topology("hmm", 4)
    lengths = lengths.clone()
    lengths[1] = 0
    with pytest.raises(InfeasibleError, match="utterance 1: 0 frames given"):
        viterbi_loss(scores, lengths, graphs)
    count = st.InfeasibleCount()
    losses, found = scores_gradient(
        lambda x: viterbi_loss(x, lengths, graphs, on_infeasible=policy, infeasible=count), scores
    )
    assert losses[1].item() == value
    assert not found[1].any()
    assert found[0].any()
    assert count.last == (1,)


def test_no_utterances_and_no_frames() -> None:
    graphs = st.fsa.FsaBatch.from_list([])
    assert viterbi_loss(torch.zeros(0, 3, 4), torch.zeros(0, dtype=torch.int64), graphs).shape == (0,)
    empty = st.fsa.ctc(torch.zeros(1, 0, dtype=torch.int64), torch.tensor([0]))
    assert viterbi_loss(torch.zeros(1, 0, 4), torch.tensor([0]), empty).tolist() == [0.0]


def test_padding_may_hold_anything() -> None:
    scores, lengths, graphs = random_topology("hmm", 5)
    spoilt = scores.clone()
    for b, length in enumerate(lengths.tolist()):
        spoilt[b, length:] = torch.nan
    expected = scores_gradient(lambda x: viterbi_loss(x, lengths, graphs), scores)
    found = scores_gradient(lambda x: viterbi_loss(x, lengths, graphs), spoilt)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_the_module() -> None:
    scores, lengths, graphs = random_topology("hmm", 6)
    module = ViterbiLoss(reduction="frames")
    assert torch.equal(
        module(scores, lengths, graphs), viterbi_loss(scores, lengths, graphs, reduction="frames")
    )
    assert repr(module) == "ViterbiLoss(reduction='frames', on_infeasible='raise')"
    with pytest.raises(ArgumentError, match="reduction must be one of"):
        ViterbiLoss(reduction="targets")
