"""Autocast changes what a network hands over; the criteria take it, and compute in their own precision."""

from __future__ import annotations

import pytest
import torch

import seqtrain as st
from tests.ops.examples import random_ctc_batch, random_topology


@pytest.mark.parametrize("normalize", [False, True])
def test_ctc_behind_a_layer(normalize: bool) -> None:
    scores, *rest = random_ctc_batch(1)
    layer = torch.nn.Linear(scores.shape[2], scores.shape[2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = layer(scores)
        loss = st.ctc_loss(logits, *rest, normalize=normalize)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    exact = st.ctc_loss(logits.detach().double(), *rest, normalize=normalize)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-5)
    (found,) = torch.autograd.grad(loss.sum(), layer.weight)
    assert found.dtype == torch.float32
    assert found.abs().max() > 0


def test_what_was_computed_outside_keeps_its_dtype() -> None:
    scores, lengths, graphs = random_topology("hmm", 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(st.full_sum(scores, lengths, graphs), st.full_sum(scores, lengths, graphs))
        assert st.posteriors(scores, lengths, graphs).dtype == torch.float32
        within = st.full_sum(scores, lengths, graphs)
    assert torch.equal(within, st.full_sum(scores, lengths, graphs))
