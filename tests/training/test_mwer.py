"""Minimum label error rate as a criterion: it lowers the errors, and goes on from a checkpoint as if never stopped."""

from __future__ import annotations

import pytest
import torch

from seqtrain.errors import ArgumentError
from seqtrain.training.mwer import MwerCriterion

TARGETS = {"a": torch.tensor([1, 2, 3]), "b": torch.tensor([2])}
LENGTHS = torch.tensor([8, 5])


def criterion(ctc_scale: float = 0.1) -> MwerCriterion:
    return MwerCriterion(TARGETS, blank=0, count=4, ctc_scale=ctc_scale, seed=1)


def test_training_lowers_the_expected_errors() -> None:
    logits = torch.zeros(2, 8, 4)
    step, rates = criterion(0.0), []
    for _ in range(200):
        leaf = logits.requires_grad_()
        value = step(["a", "b"], leaf, LENGTHS)
        logits = (leaf - 3.0 * torch.autograd.grad(value.loss, leaf)[0]).detach()
        rates.append(value.metrics["expected_errors"])
    assert sum(rates[-20:]) < 0.4 * sum(rates[:20])


def test_a_checkpoint_holds_where_the_samples_stand() -> None:
    logits = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    first = criterion()
    first(["a", "b"], logits, LENGTHS)
    state = first.state()
    second = criterion()
    second.load_state(state)
    losses = [c(["a", "b"], logits, LENGTHS).loss for c in (first, second)]
    assert torch.equal(losses[0], losses[1])


def test_the_share_of_ctc_is_added_and_short_utterances_are_counted() -> None:
    logits = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    with_ctc, without = (criterion(s)(["a", "b"], logits, torch.tensor([2, 5])) for s in (1.0, 0.0))
    assert float(with_ctc.loss) > float(without.loss)
    assert with_ctc.metrics["masked"] == 1.0


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ArgumentError, match="there are no targets of utterance 'c'"):
        criterion()(["c"], torch.zeros(1, 8, 4), LENGTHS[:1])
    with pytest.raises(ArgumentError, match="ctc_scale must be finite"):
        criterion(-1.0)
