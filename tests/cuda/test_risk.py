"""The expected risk over lattices on the emulated block: the numbers of the reference and of the CPU's kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain import reference
from seqtrain.errors import DerivativeError, FsaError, InfeasibleError, NonFiniteScoresError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.infeasible import InfeasibleCount
from seqtrain.lattice import Lattice, expected_risk
from tests.cuda.emulation import ORDERS, on_emulated_cuda
from tests.cuda.test_lattice import large_lattice
from tests.fsa.strategies import quick
from tests.ops.risk_examples import RiskBatch, parts, random_risks
from tests.ops.test_operators import check

KERNELS = [b"lattice_risk_weights", b"lattice_risk_sweep", b"lattice_risk_posteriors"]


def value_and_gradients(lattice: Lattice, seed: int = 1) -> list[torch.Tensor]:
    """Expected risks of random risks, and the gradients to weights, final weights, risks and final risks."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [w.detach().clone() for w in (lattice.weights, lattice.final_weights)]
    inputs += [torch.randn(w.shape, dtype=w.dtype, generator=generator) for w in inputs]
    weights, finals, *risks = (x.requires_grad_() for x in inputs)
    value = expected_risk(lattice.with_weights(weights, finals), *risks, on_infeasible="mask")
    return [value.detach(), *torch.autograd.grad(value.sum(), inputs)]


@quick
@given(seed=hs.integers(0, 2**32), dtype=hs.sampled_from([torch.float32, torch.float64]))
def test_any_small_lattice(seed: int, dtype: torch.dtype) -> None:
    batch = random_risks(seed, dtype=dtype)
    expected = batch.run(True, "mask")
    with on_emulated_cuda("shuffled") as cuda:
        found = batch.run(True, "mask")
    assert [name for name, *_ in cuda.launched] == KERNELS
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-9 if dtype == torch.float64 else 1e-6, atol=1e-9)


def test_the_reference() -> None:
    batch = random_risks(3, batch=3, states=60, arcs=300)
    with on_emulated_cuda("descending"):
        risk, total, posteriors, gradients, final_posteriors, final_gradients, _ = batch.run(True, "mask")
    for b in range(len(batch.graphs)):
        lattice, risks, final_risks = parts(batch, b)
        exact = reference.expected_risk(lattice, risks, final_risks)
        arcs = slice(*batch.graphs.arc_offsets[b : b + 2].tolist())
        finals = slice(*batch.graphs.final_offsets[b : b + 2].tolist())
        for ours, theirs in (
            (risk[b], exact.risk), (total[b], exact.total), (posteriors[arcs], exact.risks),
            (gradients[arcs], exact.weights), (final_posteriors[finals], exact.final_risks),
            (final_gradients[finals], exact.final_weights),
        ):  # fmt: skip
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("largest_shared", [99 << 10, 256])
def test_large_lattices_with_and_without_shared_memory(largest_shared: int) -> None:
    lattice = large_lattice(3)
    expected = value_and_gradients(lattice)
    with on_emulated_cuda("shuffled", largest_shared=largest_shared) as cuda:
        found = value_and_gradients(lattice)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    shared = 256 if largest_shared == 256 else 256 + 24 * int(lattice.state_offsets.diff().max())
    assert cuda.launched[1] == (KERNELS[1], 4, 512, shared)


def test_the_same_bits_in_any_order_with_and_without_gradient() -> None:
    lattice = large_lattice(5)
    with on_emulated_cuda():
        first = value_and_gradients(lattice)
    generator = torch.Generator().manual_seed(1)
    risks = [
        torch.randn(w.shape, dtype=w.dtype, generator=generator)
        for w in (lattice.weights, lattice.final_weights)
    ]
    for order in ORDERS:
        with on_emulated_cuda(order) as cuda:
            alone = expected_risk(lattice, *risks)
            assert [name for name, *_ in cuda.launched] == KERNELS[:2]
            found = value_and_gradients(lattice)
        assert torch.equal(alone, first[0])
        assert all(torch.equal(a, b) for a, b in zip(found, first, strict=True))


def test_a_branch_far_behind_counts_for_nothing_and_spoils_nothing() -> None:
    batch = RiskBatch(
        FsaBatch.from_list([Fsa([[0, 1, 0], [0, 1, 0]], torch.tensor([0.0, -2e7]).double())]),
        torch.tensor([1.0, 1e6]).double(),
        torch.zeros(1).double(),
    )
    with on_emulated_cuda():
        risk, total, posteriors, gradients, *_ = batch.run(True)
    assert (risk.tolist(), total.tolist(), posteriors.tolist()) == ([1.0], [0.0], [1.0, 0.0])
    assert gradients.tolist() == [0.0, 0.0]


def test_the_gradient_of_the_total_alone() -> None:
    batch = random_risks(5)
    weights = batch.graphs.weights.clone().requires_grad_()
    inputs = list(batch.arguments(True, "mask"))
    inputs[1] = weights

    def gradient() -> torch.Tensor:
        total = torch.ops.seqtrain.lattice_risk(*inputs)[1]
        (found,) = torch.autograd.grad(total.sum(), weights)
        return found

    expected = gradient()
    with on_emulated_cuda():
        torch.testing.assert_close(gradient(), expected, rtol=1e-12, atol=1e-12)


def test_a_missing_barrier_is_caught() -> None:
    lattice = large_lattice(7)
    found = []
    for order in ORDERS:
        with on_emulated_cuda(order, plant="barrier"):
            found.append(expected_risk(lattice, lattice.weights, on_infeasible="mask"))
    assert not all(torch.equal(found[0], other) for other in found[1:])


def test_an_utterance_without_a_path_is_named_or_masked_and_counted() -> None:
    batch = FsaBatch.from_list([Fsa([[0, 1, 0]]), Fsa([[0, 1, 0]], final={})], tags=["good", "bad"])
    lattice, risks = Lattice.from_fsa(batch), torch.tensor([3.0, 4.0])
    with on_emulated_cuda():
        with pytest.raises(InfeasibleError, match=r"utterance 1 \(bad\): 1 frames given"):
            expected_risk(lattice, risks)
        count = InfeasibleCount()
        assert expected_risk(lattice, risks, on_infeasible="mask", infeasible=count).tolist() == [3.0, 0.0]
        assert count.last_tags == ("bad",)
        assert expected_risk(lattice, risks, on_infeasible="inf").tolist() == [3.0, torch.inf]


def test_faults_are_named() -> None:
    batch = random_risks(9, batch=3)
    arc = int(batch.graphs.arc_offsets[1])

    def changed(**parts: torch.Tensor) -> tuple[object, ...]:
        structure = {name: part for name, part in parts.items() if "risks" not in name}
        graphs = FsaBatch._from_checked(batch.graphs._parts() | structure, None)
        risks = parts.get("risks", batch.risks)
        return RiskBatch(graphs, risks, parts.get("final_risks", batch.final_risks)).arguments(True)

    def put(tensor: torch.Tensor, place: int, value: float) -> torch.Tensor:
        copy = tensor.clone()
        copy[place] = value
        return copy

    last = int(batch.graphs.final_offsets[-1]) - 1
    backwards = batch.graphs.arcs.clone()
    backwards[arc, 1] = backwards[arc, 0]
    run = torch.ops.seqtrain.lattice_risk
    with on_emulated_cuda():
        with pytest.raises(FsaError, match=r"the weight of arc 0 \(.*\) of lattice 1 is nan") as caught:
            run(*changed(weights=put(batch.graphs.weights, arc, float("nan"))))
        assert (caught.value.sequence, caught.value.arc) == (1, 0)
        with pytest.raises(FsaError, match=r"the final weight of final state .* of lattice 2 is 40000000"):
            run(*changed(final_weights=put(batch.graphs.final_weights, last, 4e7)))
        with pytest.raises(NonFiniteScoresError, match=r"risks: the risk of arc 0 .* of lattice 1 is inf"):
            run(*changed(risks=put(batch.risks, arc, float("inf"))))
        with pytest.raises(
            NonFiniteScoresError, match=r"final_risks: the risk of final state .* of lattice 2"
        ):
            run(*changed(final_risks=put(batch.final_risks, last, float("nan"))))
        with pytest.raises(FsaError, match=r"arc 0 \(.*\) of lattice 1 breaks the order"):
            run(*changed(arcs=backwards))
        with pytest.raises(ShapeError, match="risks must have shape"):
            run(*changed(risks=batch.risks[:1]))


def test_a_second_derivative_is_refused() -> None:
    lattice = large_lattice(1, batch=1)
    weights = lattice.weights.clone().requires_grad_()
    with on_emulated_cuda():
        value = expected_risk(lattice.with_weights(weights), lattice.weights)
        (gradient,) = torch.autograd.grad((value**2).sum(), weights, create_graph=True)
        with pytest.raises(DerivativeError, match="second derivative"):
            gradient.sum().backward()


def test_no_lattices() -> None:
    empty = RiskBatch(FsaBatch.from_list([]), torch.zeros(0), torch.zeros(0))
    with on_emulated_cuda() as cuda:
        assert empty.run(True)[0].shape == (0,)
    assert cuda.launched == []


@pytest.mark.torch2  # torch.library.opcheck
def test_operators() -> None:
    batch, tests, operators = random_risks(4), ("test_schema", "test_faketensor"), torch.ops.seqtrain
    offsets = batch.graphs.arc_offsets
    with on_emulated_cuda():
        check(operators.lattice_risk.default, batch.arguments(True, "mask"), tests)
        risk, total, posteriors, gradients, *_ = batch.run(True, "mask")
        given = (risk, total, posteriors, gradients, offsets, batch.risks)
        check(operators.lattice_risk_weights_backward.default, given, tests)
        check(operators.lattice_risk_risks_backward.default, (risk, posteriors, offsets, batch.risks), tests)
