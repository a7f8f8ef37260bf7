"""Derivatives in double precision against finite differences, on every topology."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain.fsa import Fsa
from tests.ops.examples import TOPOLOGIES, random_ctc_batch, random_fsa, random_scores, random_topology


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_scores_arc_weights_and_final_weights(name: str) -> None:
    scores, lengths, graphs = random_topology(name, 1, batch=2, frames=8, dtype=torch.float64)
    finals = graphs.final_weights.clone().requires_grad_()

    def value(x: torch.Tensor, weights: torch.Tensor, final_weights: torch.Tensor) -> torch.Tensor:
        return st.full_sum(x, lengths, graphs.with_weights(weights, final_weights))

    weights = graphs.weights.clone().requires_grad_()
    assert torch.autograd.gradcheck(value, (scores.requires_grad_(), weights, finals))


def test_shared_automaton() -> None:
    random = np.random.default_rng(2)
    fsa = random_fsa(random, states=4, arcs=12, labels=3, forbidden=0.0, dtype=torch.float64)
    lengths = torch.tensor([4, 2, 3])

    def value(x: torch.Tensor, weights: torch.Tensor, final_weights: torch.Tensor) -> torch.Tensor:
        final = (fsa.final_states, final_weights)
        shared = Fsa(fsa.arcs, weights, num_states=fsa.num_states, start=fsa.start, final=final)
        return st.full_sum(x, lengths, shared)

    scores = random_scores(random, 3, 4, 3, dtype=torch.float64).requires_grad_()
    weights = fsa.weights.requires_grad_()
    assert torch.autograd.gradcheck(value, (scores, weights, fsa.final_weights.requires_grad_()))


@pytest.mark.parametrize("normalize", [False, True])
def test_ctc(normalize: bool) -> None:
    batch = random_ctc_batch(3, batch=3, frames=7, labels=4, targets=3, dtype=torch.float64, scale=1.0)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return st.ctc_loss(x, *batch[1:], normalize=normalize)

    assert torch.autograd.gradcheck(loss, batch.scores.requires_grad_())


def test_a_factor_of_the_weights() -> None:
    """Through `scale_weights`, as for a trained scale of time distortion penalties."""
    scores, lengths, graphs = random_topology("hmm", 4, batch=2, frames=8, dtype=torch.float64)

    def value(factor: torch.Tensor) -> torch.Tensor:
        return st.full_sum(scores, lengths, graphs.scale_weights(factor))

    assert torch.autograd.gradcheck(value, torch.tensor(0.7, dtype=torch.float64, requires_grad=True))
