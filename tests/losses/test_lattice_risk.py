"""LatticeRiskLoss: its costs, scale, reductions and weights."""

from __future__ import annotations

import pickle

import pytest
import torch

from seqtrain.errors import ArgumentError
from seqtrain.fsa import Fsa
from seqtrain.lattice import Lattice, edit_risk, expected_risk, frame_accuracy
from seqtrain.losses import LatticeRiskLoss, lattice_risk_loss
from tests.lattice.examples import random_lattice


def example() -> tuple[Lattice, torch.Tensor]:
    lattice = random_lattice(range(3))
    lattice = lattice.with_weights(lattice.weights.clamp(min=-5).requires_grad_())
    return lattice, torch.linspace(-1, 2, lattice.weights.shape[0], dtype=torch.float64)


def test_given_risks_and_reductions() -> None:
    lattice, risks = example()
    each = expected_risk(lattice, risks)
    assert torch.equal(LatticeRiskLoss(reduction="none")(lattice, risks), each)
    assert torch.equal(LatticeRiskLoss(reduction="sum")(lattice, risks), each.sum())
    assert torch.equal(LatticeRiskLoss()(lattice, risks), each.sum() / 3)
    by_frames = LatticeRiskLoss(reduction="frames")(lattice, risks)
    torch.testing.assert_close(by_frames, each.sum() / lattice.lengths.sum())
    by_targets = LatticeRiskLoss(reduction="targets")
    found = by_targets(lattice, risks, target_lengths=torch.tensor([3, 0, 2]))
    torch.testing.assert_close(found, each.sum() / 5)
    with pytest.raises(ArgumentError, match="reduction='targets' needs target lengths"):
        by_targets(lattice, risks)


def test_targets_are_the_references_of_costs_that_have_them() -> None:
    lattice, _ = example()
    references, lengths = torch.tensor([[1, 2, 3]] * 3), torch.tensor([3, 0, 2])
    starts = torch.arange(3).expand(3, 3)
    for cost, inputs in (
        ("edit", (references, lengths)),
        ("overlap_accuracy", (references, starts, starts + 1, lengths)),
    ):
        total = LatticeRiskLoss(cost, reduction="sum")(lattice, *inputs)
        torch.testing.assert_close(LatticeRiskLoss(cost, reduction="targets")(lattice, *inputs), total / 5)


def test_the_scale_of_the_scores() -> None:
    lattice, risks = example()
    flat = lattice_risk_loss(lattice, risks, scale=1e-9)
    halved = lattice.with_weights(lattice.weights * 0.5, lattice.final_weights * 0.5)
    torch.testing.assert_close(lattice_risk_loss(lattice, risks, scale=0.5), expected_risk(halved, risks))
    for b, one in enumerate(lattice):
        counted = one.with_weights(torch.zeros_like(one.weights), torch.zeros_like(one.final_weights))
        own = risks[lattice.arc_offsets[b] : lattice.arc_offsets[b + 1]]
        torch.testing.assert_close(flat[b], expected_risk(counted, own)[0], rtol=1e-6, atol=1e-6)


def test_a_factor_of_the_loss_is_one_of_the_gradient_and_utterances_may_have_weights() -> None:
    lattice, risks = example()
    each = lattice_risk_loss(lattice, risks)
    gradients = [torch.autograd.grad(each[b], lattice.weights, retain_graph=True)[0] for b in range(3)]
    factors = torch.tensor([2.0, 0.0, -0.5], dtype=torch.float64)
    (weighted,) = torch.autograd.grad((factors * each).sum(), lattice.weights)
    torch.testing.assert_close(weighted, sum(f * g for f, g in zip(factors, gradients, strict=True)))


def test_costs_by_name() -> None:
    lattice, _ = example()
    alignment = torch.randint(0, 4, (3, 10), generator=torch.Generator().manual_seed(0))
    smbr = LatticeRiskLoss("frame_accuracy", reduction="none")(lattice, alignment)
    torch.testing.assert_close(smbr, expected_risk(lattice, -frame_accuracy(lattice, alignment)))
    mpfe = LatticeRiskLoss("frame_accuracy", options={"label_map": [0, 0, 1, None]})
    assert torch.isfinite(mpfe(lattice, alignment))
    lengths = torch.tensor([3, 0, 2])
    edit = LatticeRiskLoss("edit", reduction="none")(lattice, alignment, lengths)
    torch.testing.assert_close(edit, expected_risk(*edit_risk(lattice, alignment, lengths)[:3]))
    starts = torch.arange(3).expand(3, 3)
    mpe = LatticeRiskLoss("overlap_accuracy")(lattice, alignment[:, :3], starts, starts + 1, lengths)
    assert -3 <= float(mpe.detach()) <= 10


def test_descent_reaches_the_reference() -> None:
    """Gradient descent on the expected edit distance makes the right path of a small lattice certain."""
    weights = torch.zeros(6, requires_grad=True)
    fsa = [[t, t + 1, v] for t in range(3) for v in range(2)]
    references, lengths = torch.tensor([[1, 0, 1]]), torch.tensor([3])
    loss = LatticeRiskLoss("edit")
    for _ in range(200):
        value = loss(Lattice.from_fsa(Fsa(fsa, weights)), references, lengths)
        (gradient,) = torch.autograd.grad(value, weights)
        weights = (weights - 2.0 * gradient).detach().requires_grad_()
    assert float(value.detach()) < 0.05


def test_masked_utterances_are_counted() -> None:
    loss = LatticeRiskLoss(on_infeasible="mask")
    assert float(loss(Lattice.from_fsa(Fsa([[0, 1, 0]], final={})), torch.ones(1))) == 0.0
    assert loss.infeasible.infeasible == 1
    assert pickle.loads(pickle.dumps(loss)).infeasible.infeasible == 1


def test_bad_options_are_named() -> None:
    with pytest.raises(ArgumentError, match="cost must be one of 'given', 'frame_accuracy'"):
        LatticeRiskLoss("mbr")
    with pytest.raises(ArgumentError, match="reduction must be one of"):
        LatticeRiskLoss(reduction="mean")
    with pytest.raises(ArgumentError, match="scale must be finite and above 0"):
        LatticeRiskLoss(scale=0.0)
    lattice, risks = example()
    with pytest.raises(ArgumentError, match="cost='given' takes the lattice"):
        LatticeRiskLoss()(lattice)
    with pytest.raises(ArgumentError, match="cost='given' takes"):
        LatticeRiskLoss()(lattice, risks, blank=0)
