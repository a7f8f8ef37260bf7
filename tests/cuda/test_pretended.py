"""Whether everything is on the right side, host or device: values, and the operators of gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain.errors import CudaError, DerivativeError, DeviceError, FsaError
from seqtrain.fsa import FsaBatch
from seqtrain.infeasible import NOT_HERE, InfeasibleCount
from seqtrain.lattice import Lattice, arc_posteriors, expected_risk, prune, total_score
from seqtrain.losses.diagnostics import sequence_diagnostics
from seqtrain.scores import Packed
from tests.cuda.pretend import DEVICE, PretendedTensor, captured, pretended_cuda
from tests.cuda.test_criteria import CRITERIA, LATTICE_CRITERIA, lattice_of
from tests.ops.examples import ergodic, offsets_of, packed_rows, random_batch, random_scores, random_topology
from tests.ops.risk_examples import random_risks

pytestmark = pytest.mark.torch2  # dispatch modes whose results are a subclass

ops = torch.ops.seqtrain


def flat(graphs: FsaBatch) -> tuple[torch.Tensor, ...]:
    """In the operators' order."""
    return (
        graphs.arcs, graphs.weights, graphs.arc_offsets, graphs.final_states, graphs.final_weights,
        graphs.final_offsets, graphs.starts, graphs.num_states,
    )  # fmt: skip


@pytest.mark.parametrize("name", CRITERIA)
def test_criteria(name: str) -> None:
    scores = 3 * torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(3))
    expected = CRITERIA[name](scores)
    with pretended_cuda() as cuda:
        found = CRITERIA[name](scores.to(DEVICE))
        assert found.device == DEVICE
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6)
    assert cuda.launched


@pytest.mark.parametrize("function", [st.full_sum, st.posteriors, st.compact_posteriors, st.best_path])
def test_functions(function: object) -> None:
    assert callable(function)
    batch = random_batch(5, batch=6)
    count = InfeasibleCount()
    expected = function(*batch, on_infeasible="mask")
    with pretended_cuda():
        found = function(batch.scores.to(DEVICE), *batch[1:], on_infeasible="mask")
        first = found[0] if isinstance(found, tuple) else found
        assert first.device == DEVICE
        torch.testing.assert_close(
            first.cpu(), expected[0] if isinstance(expected, tuple) else expected, rtol=1e-5, atol=1e-5
        )
        packed = Packed(packed_rows(batch.scores, batch.lengths).to(DEVICE), offsets_of(batch.lengths))
        function(packed, batch.lengths, batch.automata, on_infeasible="mask")
        st.full_sum(batch.scores.to(DEVICE), *batch[1:], on_infeasible="mask", infeasible=count)
    assert count.utterances == 6


@pytest.mark.parametrize("function", [st.full_sum, st.leaky_full_sum, st.posteriors, st.compact_posteriors])
def test_functions_of_a_shared_automaton(function: object) -> None:
    assert callable(function)
    random = np.random.default_rng(3)
    shared = ergodic(random, 20, 4, 8)
    scores, lengths = random_scores(random, 3, 12, 8), torch.tensor([12, 5, 9])
    expected = function(scores, lengths, shared)
    with pretended_cuda() as cuda:
        found = function(scores.to(DEVICE), lengths, shared)
        first, *rest = found if isinstance(found, tuple) else (found,)
        assert all(part.device == DEVICE for part in (first, *rest))
        wanted, *_ = expected if isinstance(expected, tuple) else (expected,)
        torch.testing.assert_close(first.cpu(), wanted, rtol=1e-5, atol=1e-5)
        if rest:
            occupancies = rest[-1].cpu()
            for b, length in enumerate(lengths.tolist()):
                here = expected.occupancies[b, :length]
                torch.testing.assert_close(occupancies[b, :length], here, rtol=1e-5, atol=1e-5)
    assert cuda.launched


@pytest.mark.parametrize("weights_on", ["cpu", "cuda"])
@pytest.mark.parametrize("shared", [False, True])
def test_operators_of_gradients(weights_on: str, shared: bool) -> None:
    scores, lengths, automata = random_topology("hmm", 7)
    if shared:
        automata = FsaBatch.from_list([automata[0]])
    direct = (lengths, *flat(automata))
    rest = (None, None, True, True, "mask", NOT_HERE)
    value, *kept, status = ops.full_sum(scores, None, *direct, *rest)
    layout = ([3, 20, 8], [160, 8, 1])
    expected = ops.full_sum_gradient(
        torch.ones_like(value), scores, None, *direct, *kept, status, True, True, *layout
    )
    with pretended_cuda():
        there = scores.to(DEVICE)
        graphs = flat(automata.to(DEVICE) if weights_on == "cuda" else automata)
        value, *kept, status = ops.full_sum(there, None, lengths, *graphs, *rest)
        assert all(tensor.device == DEVICE for tensor in (value, *kept, status))
        ones = torch.ones_like(value)
        found = ops.full_sum_gradient(ones, there, None, lengths, *graphs, *kept, status, True, True, *layout)
        assert [tensor.device.type for tensor in found] == ["cuda", weights_on, weights_on]
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=1e-5, atol=1e-6)
        memory = torch.empty_like(there)
        ops.full_sum_scores_backward_into(
            ones, there, graphs[1], None, lengths, kept[0], kept[1], status, memory
        )
        assert torch.equal(memory.cpu(), found[0].cpu())
        with pytest.raises(DerivativeError, match=r"scores are on cuda:0: pass scores\.cpu"):
            ops.full_sum_tangents(
                ones, there, None, lengths, *graphs, there, None, None, status, True, False, *layout
            )


def test_diagnostics() -> None:
    batch = random_topology("ctc", 3)
    target_lengths, sums = torch.tensor([1, 2, 3]), torch.zeros(3)
    expected = sequence_diagnostics(*batch, denominator_sums=sums, silence=0, target_lengths=target_lengths)
    with pretended_cuda():
        found = sequence_diagnostics(
            batch.scores.to(DEVICE), *batch[1:], denominator_sums=sums.to(DEVICE), silence=0,
            target_lengths=target_lengths,
        )  # fmt: skip
    assert vars(found) == pytest.approx(vars(expected), rel=1e-5)


def test_automata_elsewhere_are_refused() -> None:
    scores, lengths, automata = random_topology("hmm", 7)
    with pretended_cuda():
        there = automata.to(DEVICE)
        with pytest.raises(DeviceError, match=r"fsa is on cuda:0, the scores on cpu: pass fsa\.to\('cpu'\)"):
            st.full_sum(scores, lengths, there)


def test_what_mixes_host_and_device_is_noticed() -> None:
    with pretended_cuda():
        there = torch.zeros(3).to(DEVICE)
        assert isinstance(there, PretendedTensor)
        with pytest.raises(AssertionError, match="takes tensors of the host and of the device"):
            there + torch.zeros(3)


@pytest.mark.parametrize("name", LATTICE_CRITERIA)
def test_criteria_over_lattices(name: str) -> None:
    lattice = lattice_of(2 * torch.randn(3, 243, generator=torch.Generator().manual_seed(5)))
    expected = LATTICE_CRITERIA[name](lattice)
    with pretended_cuda() as cuda:
        found = LATTICE_CRITERIA[name](lattice.to(DEVICE))
        assert found.device == DEVICE
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6)
    assert [kernel for kernel, *_ in cuda.launched][1].endswith(b"_sweep")


def test_operators_of_gradients_of_lattices() -> None:
    batch = random_risks(5)
    offsets = batch.graphs.arc_offsets
    expected = batch.run(True, "mask")
    ones = torch.tensor([1.0, -2.0, 0.0, 0.5], dtype=torch.float64)
    with pretended_cuda():
        there = [t.to(DEVICE) if isinstance(t, torch.Tensor) else t for t in batch.arguments(True, "mask")]
        found = ops.lattice_risk(*there)
        assert all(tensor.device == DEVICE for tensor in found)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=1e-9, atol=1e-9)
        grad, at, weights = ones.to(DEVICE), offsets.to(DEVICE), batch.graphs.weights.to(DEVICE)
        by_weight = ops.lattice_risk_weights_backward(grad, None, found[2], found[3], at, weights)
        by_risk = ops.lattice_risk_risks_backward(grad, found[2], at, weights)
        by_total = ops.lattice_total_backward(grad, weights, found[2], at)
        assert {t.device for t in (by_weight, by_risk, by_total)} == {DEVICE}
        items = ones.repeat_interleave(offsets.diff())
        for a, b in ((by_weight, expected[3]), (by_risk, expected[2]), (by_total, expected[2])):
            torch.testing.assert_close(a.cpu(), items * b, rtol=1e-9, atol=1e-9)


def test_lattices_in_a_capture_of_a_graph() -> None:
    lattice = lattice_of(torch.zeros(3, 243))
    with pretended_cuda():
        there = lattice.to(DEVICE)
        for name, function in (
            ("total_score", total_score),
            ("total_score", arc_posteriors),
            ("expected_risk", lambda x: expected_risk(x, x.weights, on_infeasible="mask")),
        ):
            function(there)
            with (
                captured(),
                pytest.raises(
                    CudaError,
                    match=rf"lattice\.{name} can't be captured in a CUDA graph, since lattices are checked in host "
                    r"memory in each call: compute it outside of the capture",
                ),
            ):
                function(there)


def test_faults_of_lattices_on_a_device() -> None:
    lattice = lattice_of(torch.zeros(3, 243))
    weights = lattice.weights.clone()
    weights[243] = torch.nan
    bad = Lattice._from_checked(lattice._parts() | {"weights": weights})
    with pretended_cuda():
        with pytest.raises(FsaError, match="weights of lattice 1 hold NaN"):
            total_score(bad.to(DEVICE))
        with pytest.raises(DeviceError, match="risks is on cpu, the lattice on cuda:0"):
            expected_risk(lattice.to(DEVICE), weights)
        with pytest.raises(DeviceError, match=r"on cuda:0, and this function has a kernel for the CPU alone"):
            prune(lattice.to(DEVICE), beam=1.0)
