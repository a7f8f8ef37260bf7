"""Expected risk over lattices: against brute force and the reference, and what the operator must obey."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain import reference
from seqtrain.errors import DerivativeError, FsaError, InfeasibleError, NonFiniteScoresError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch
from tests.fsa.strategies import quick
from tests.ops.risk_examples import RiskBatch, brute_force, parts, random_lattice, random_risks
from tests.ops.test_determinism import threads
from tests.ops.test_operators import check


def assert_exact(batch: RiskBatch, tolerance: float) -> None:
    """Values and all derivatives of every lattice against the reference and, as far as it goes, brute force."""
    risk, total, posteriors, gradients, final_posteriors, final_gradients, _ = batch.run(True, "mask")
    for b in range(len(batch.graphs)):
        lattice, risks, final_risks = parts(batch, b)
        exact = reference.expected_risk(lattice, risks, final_risks)
        arcs = slice(*batch.graphs.arc_offsets[b : b + 2].tolist())
        finals = slice(*batch.graphs.final_offsets[b : b + 2].tolist())
        found = (
            float(risk[b]), float(total[b]) if exact.total > -np.inf else -np.inf, gradients[arcs].numpy(),
            posteriors[arcs].numpy(), final_gradients[finals].numpy(), final_posteriors[finals].numpy(),
        )  # fmt: skip
        for ours, theirs in zip(found, astuple(exact), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@quick
@given(seed=hs.integers(0, 2**32))
def test_the_reference_equals_brute_force(seed: int) -> None:
    batch = random_risks(seed)
    for b in range(len(batch.graphs)):
        lattice, risks, final_risks = parts(batch, b)
        found = astuple(reference.expected_risk(lattice, risks, final_risks))
        for ours, theirs in zip(found, astuple(brute_force(lattice, risks, final_risks)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@quick
@given(seed=hs.integers(0, 2**32))
def test_any_small_lattice(seed: int) -> None:
    assert_exact(random_risks(seed), 1e-9)


def test_larger_lattices_in_both_precisions() -> None:
    assert_exact(random_risks(3, batch=3, states=200, arcs=1500), 1e-9)
    # The arithmetic is double: what is left is the rounding of the value.
    assert_exact(random_risks(3, batch=3, states=200, arcs=1500, dtype=torch.float32), 2e-6)


@pytest.mark.parametrize("offset", [-1e6, -1e3, 1e3, 1e6])
def test_weights_of_any_magnitude(offset: float) -> None:
    """A constant on every arc of a chain of parallel arcs shifts the total alone, far beyond the range of double."""
    rows = [[s, s + 1, 0] for s in range(300) for _ in range(3)]
    random = np.random.default_rng(0)
    weights = torch.from_numpy(random.integers(-8, 8, len(rows)) / 4.0)
    risks = torch.from_numpy(random.normal(size=len(rows)))
    plain, moved = (
        RiskBatch(FsaBatch.from_list([Fsa(rows, weights + shift)]), risks, torch.zeros(1).double()).run(True)
        for shift in (0.0, offset)
    )
    assert float(moved[1]) == pytest.approx(float(plain[1]) + 300 * offset, rel=1e-12)
    for index in (0, 2, 3):
        torch.testing.assert_close(moved[index], plain[index], rtol=1e-9, atol=1e-9)


def test_a_branch_far_behind_counts_for_nothing_and_spoils_nothing() -> None:
    batch = RiskBatch(
        FsaBatch.from_list([Fsa([[0, 1, 0], [0, 1, 0]], torch.tensor([0.0, -2000.0]).double())]),
        torch.tensor([1.0, 1e6]).double(),
        torch.zeros(1).double(),
    )
    risk, _, posteriors, gradients, *_ = batch.run(True)
    assert risk.tolist() == [1.0]
    assert posteriors.tolist() == [1.0, 0.0]
    assert gradients.tolist() == [0.0, 0.0]


@quick
@given(seed=hs.integers(0, 2**32), shift=hs.floats(-100, 100))
def test_a_constant_on_every_final_risk_moves_the_value_alone(seed: int, shift: float) -> None:
    batch = random_risks(seed)
    moved = batch._replace(final_risks=batch.final_risks + shift)
    before, after = batch.run(True, "mask"), moved.run(True, "mask")
    expected = torch.where(before[6] == 0, before[0] + shift, 0.0)
    torch.testing.assert_close(after[0], expected, rtol=1e-9, atol=1e-9)
    for index in (1, 2, 3, 4, 5):
        torch.testing.assert_close(after[index], before[index], rtol=1e-9, atol=1e-9)


def test_gradients_by_finite_differences() -> None:
    batch = random_risks(8, states=6, arcs=8)
    graphs = batch.graphs
    leaves = [
        t.clone().requires_grad_()
        for t in (graphs.weights.clamp(min=-9.0), graphs.final_weights, batch.risks, batch.final_risks)
    ]

    def values(
        weights: torch.Tensor, finals: torch.Tensor, *risks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        risk, total, *_ = RiskBatch(graphs.with_weights(weights, finals), *risks).run(True)
        return risk, total

    assert torch.autograd.gradcheck(values, leaves)


@pytest.mark.torch2  # torch.library.opcheck
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("with_gradient", [False, True])
def test_the_operator_obeys_the_compilers_rules(with_gradient: bool, dtype: torch.dtype) -> None:
    batch = random_risks(2, dtype=dtype)
    assert batch.run(policy="mask")[0].dtype == dtype
    batch.risks.requires_grad_(with_gradient)
    weights = batch.graphs.weights.detach().requires_grad_(with_gradient)
    batch = batch._replace(graphs=batch.graphs.with_weights(weights))
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    check(torch.ops.seqtrain.lattice_risk.default, batch.arguments(with_gradient, "mask"), tests)


@pytest.mark.torch2  # torch.library.opcheck
def test_the_backward_operators_obey_them_too() -> None:
    batch = random_risks(2)
    risk, total, posteriors, gradients, *_ = batch.run(True, "mask")
    offsets, tests = batch.graphs.arc_offsets, ("test_schema", "test_faketensor")
    operators = torch.ops.seqtrain
    given = (risk, total, posteriors, gradients, offsets, batch.risks)
    check(operators.lattice_risk_weights_backward.default, given, tests)
    check(operators.lattice_risk_risks_backward.default, (risk, posteriors, offsets, batch.risks), tests)


def test_a_second_derivative_is_refused() -> None:
    batch = random_risks(2)
    leaf = batch.risks.requires_grad_()
    weights = batch.graphs.weights.clone().requires_grad_()
    risk = batch._replace(graphs=batch.graphs.with_weights(weights)).run(True, "mask")[0]
    (gradient,) = torch.autograd.grad((risk**2).sum(), weights, create_graph=True)
    with pytest.raises(DerivativeError, match="second derivative"):
        torch.autograd.grad(gradient.sum(), leaf)


def test_the_same_bits_for_any_number_of_threads_and_run_after_run() -> None:
    batch = random_risks(4, batch=9, states=400, arcs=9000)
    results = []
    for count in (1, 2, 3, 7, 1):
        with threads(count):
            results.append(batch.run(True, "mask"))
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


def test_without_gradient_the_values_are_the_same() -> None:
    batch = random_risks(5, batch=6, states=30, arcs=90)
    with_gradient, without = batch.run(True, "mask"), batch.run(False, "mask")
    assert torch.equal(with_gradient[0], without[0])
    assert torch.equal(with_gradient[1], without[1])
    assert without[2].shape == (0,)


def dead_and_alive() -> RiskBatch:
    graphs = FsaBatch.from_list(
        [Fsa([[0, 1, 0]]), Fsa([[0, 1, 0]], torch.tensor([-torch.inf])), Fsa([], num_states=1, final={})]
    )
    return RiskBatch(graphs, torch.tensor([2.0, 3.0]), torch.zeros(2))


def test_lattices_without_a_path() -> None:
    batch = dead_and_alive()
    with pytest.raises(InfeasibleError, match=r"2 utterance\(s\) without any path") as caught:
        batch.run()
    assert [u.index for u in caught.value.utterances] == [1, 2]
    risk, total, posteriors, gradients, *_, status = batch.run(True, "mask")
    assert risk.tolist() == [2.0, 0.0, 0.0]
    assert total.tolist() == [0.0, 0.0, 0.0]
    assert posteriors.tolist() == [1.0, 0.0]
    assert gradients.tolist() == [0.0, 0.0]
    assert status.tolist() == [0, -2, -2]
    assert batch.run(True, "inf")[0].tolist() == [2.0, torch.inf, torch.inf]


def test_an_empty_batch() -> None:
    risk, *_ = RiskBatch(FsaBatch.from_list([]), torch.zeros(0), torch.zeros(0)).run(True)
    assert risk.shape == (0,)


def test_the_empty_path_has_its_final_risk() -> None:
    graphs = FsaBatch.from_list([Fsa([], num_states=1, final={0: -1.5})])
    risk, total, *_ = RiskBatch(graphs, torch.zeros(0), torch.tensor([4.0])).run(True)
    assert (risk.tolist(), total.tolist()) == ([4.0], [-1.5])


@pytest.mark.parametrize("arcs", [[[1, 2, 0], [0, 1, 0]], [[0, 1, 0], [1, 1, 0]], [[0, 2, 0], [2, 1, 0]]])
def test_arcs_out_of_order_are_named(arcs: list[list[int]]) -> None:
    graphs = FsaBatch.from_list([Fsa([[0, 1, 0]]), Fsa(arcs, num_states=3)])
    with pytest.raises(FsaError, match=r"arc 1 .* of lattice 1 breaks the order") as caught:
        RiskBatch(graphs, torch.zeros(3), torch.zeros(2)).run()
    assert (caught.value.sequence, caught.value.arc) == (1, 1)


def test_weights_that_cannot_be_used_are_named() -> None:
    graphs = FsaBatch.from_list([Fsa([[0, 1, 0]])])
    large = graphs.with_weights(torch.tensor([5e7]))
    with pytest.raises(FsaError, match=r"the weight of arc 0 \(0 → 1\) of lattice 0 is 5"):
        RiskBatch(large, torch.zeros(1), torch.zeros(1)).run()
    finals = graphs.with_weights(torch.zeros(1), torch.tensor([5e7]))
    with pytest.raises(FsaError, match="the final weight of final state 1 of lattice 0"):
        RiskBatch(finals, torch.zeros(1), torch.zeros(1)).run()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_risks_that_are_not_finite_are_named(value: float) -> None:
    graphs = FsaBatch.from_list([Fsa([[0, 1, 0]])])
    with pytest.raises(NonFiniteScoresError, match="risks: the risk of arc 0"):
        RiskBatch(graphs, torch.tensor([value]), torch.zeros(1)).run()
    with pytest.raises(NonFiniteScoresError, match="final_risks: the risk of final state 1"):
        RiskBatch(graphs, torch.zeros(1), torch.tensor([value])).run()


def test_as_many_risks_as_weights() -> None:
    graphs = FsaBatch.from_list([Fsa([[0, 1, 0]])])
    with pytest.raises(ShapeError, match=r"risks must have shape \(1,\)"):
        RiskBatch(graphs, torch.zeros(2), torch.zeros(1)).run()


def test_the_examples_have_many_paths() -> None:
    lattices = (random_lattice(np.random.default_rng(seed), 6, 10, torch.float64) for seed in range(20))
    counts = [len(list(reference.enumerate_lattice_paths(lattice))) for lattice in lattices]
    assert sorted(counts)[10] > 5
