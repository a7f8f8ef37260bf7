"""`torch.utils.checkpoint`: forward passes that are run again on the way back."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import seqtrain as st
from tests.ops.examples import random_ctc_batch, random_topology


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_loss_inside_of_a_checkpoint(reentrant: bool) -> None:
    scores, *rest = random_ctc_batch(1)
    layer = torch.nn.Linear(scores.shape[2], scores.shape[2])

    def loss(x: torch.Tensor) -> torch.Tensor:
        return st.ctc_loss(layer(x), *rest, normalize=True).sum()

    gradients = []
    for function in (loss, lambda x: checkpoint(loss, x, use_reentrant=reentrant)):
        leaf = scores.detach().clone().requires_grad_()
        layer.zero_grad()
        function(leaf).backward()
        assert leaf.grad is not None
        assert layer.weight.grad is not None
        gradients.append((leaf.grad, layer.weight.grad.clone()))
    for plain, found in zip(*gradients, strict=True):
        assert torch.equal(plain, found)


def test_second_derivatives_through_a_checkpoint() -> None:
    scores, lengths, graphs = random_topology("hmm", 2, batch=2, frames=8, dtype=torch.float64)

    def value(x: torch.Tensor) -> torch.Tensor:
        return st.full_sum(x.tanh(), lengths, graphs)

    assert torch.autograd.gradgradcheck(
        lambda x: checkpoint(value, x, use_reentrant=False), scores.requires_grad_()
    )
