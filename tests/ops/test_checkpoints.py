"""Long utterances keep only some frames of the recursion and compute the others once more: the bits stay the same.

A run of frames that only blank can fill, put at the end, changes no posterior before it. So an utterance that is short
enough to be kept whole, and the same with such a run that makes it too long, must have the same gradients.
"""

from __future__ import annotations

import numpy as np
import torch

import seqtrain as st
from seqtrain import reference
from seqtrain.fsa import FsaBatch
from tests.ops.examples import random_scores
from tests.ops.gradient import scores_gradient

# Of a recursion's memory csrc/cpu/segments.h keeps 96 MiB: 4600 frames of this many targets in single precision.
TARGETS, SHORT, LONG, LABELS = 900, 3000, 6000, 5


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores (1, LONG, V) that end with blanks, their first SHORT frames, and targets."""
    random = np.random.default_rng(0)
    scores = random_scores(random, 1, LONG, LABELS)
    scores[:, SHORT:] = -torch.inf
    scores[:, SHORT:, 0] = 0.0
    return scores, scores[:, :SHORT], torch.from_numpy(random.integers(1, LABELS, size=(1, TARGETS)))


def test_ctc() -> None:
    long, short, targets = example()
    count = torch.tensor([TARGETS])

    def loss(x: torch.Tensor) -> torch.Tensor:
        return st.ctc_loss(x, targets, torch.tensor([x.shape[1]]), count)

    whole, pieces = scores_gradient(loss, short), scores_gradient(loss, long)
    assert torch.equal(pieces[1][:, :SHORT], whole[1])
    torch.testing.assert_close(pieces[0], whole[0], rtol=1e-7, atol=0)
    assert bool((pieces[1][:, SHORT:, 0] == -1.0).all())
    expected = reference.ctc_loss(long[0].double().numpy(), targets[0].numpy())
    assert np.abs(pieces[1][0].double().numpy() - expected.gradient).max() < 5e-6


def test_automata() -> None:
    long, short, targets = example()
    graphs = st.fsa.ctc(targets, [TARGETS])
    random = np.random.default_rng(1)
    weights = torch.from_numpy(-np.abs(random.normal(size=graphs.arcs.shape[0]))).float()
    loop = (graphs.arcs[:, 0] == 2 * TARGETS) & (graphs.arcs[:, 1] == 2 * TARGETS)
    leave = (graphs.arcs[:, 0] == 2 * TARGETS - 1) & (graphs.arcs[:, 1] == 2 * TARGETS)
    weights[loop | leave] = 0.0

    def with_gradients(x: torch.Tensor, graphs: FsaBatch) -> tuple[torch.Tensor, ...]:
        leaf, arc_weights = x.clone().requires_grad_(), weights.clone().requires_grad_()
        value = st.full_sum(leaf, torch.tensor([x.shape[1]]), graphs.with_weights(arc_weights))
        return (value.detach(), *torch.autograd.grad(value.sum(), (leaf, arc_weights)))

    whole, pieces = with_gradients(short, graphs), with_gradients(long, graphs)
    assert torch.equal(pieces[1][:, :SHORT], whole[1])
    torch.testing.assert_close(pieces[0], whole[0], rtol=1e-7, atol=0)
    rest = ~(loop | leave)
    torch.testing.assert_close(pieces[2][rest], whole[2][rest], rtol=1e-6, atol=1e-6)


def test_several_long_utterances_of_different_lengths() -> None:
    """The memory of one is used by the next, whose segments are others."""
    random = np.random.default_rng(2)
    lengths, counts = torch.tensor([6000, 2500, 5200]), torch.tensor([900, 2, 880])
    scores = random_scores(random, 3, 6000, LABELS)
    targets = torch.from_numpy(random.integers(1, LABELS, size=(3, 900)))
    _, together = scores_gradient(lambda x: st.ctc_loss(x, targets, lengths, counts), scores)
    for b in range(3):
        one = slice(b, b + 1)
        alone = scores[one].clone().requires_grad_()
        loss = st.ctc_loss(alone, targets[one], lengths[one], counts[one])
        (gradient,) = torch.autograd.grad(loss.sum(), alone)
        assert torch.equal(gradient, together[one])
