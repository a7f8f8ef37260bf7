"""Sums over the paths of lattices on the emulated block: the numbers of the reference and of the CPU's kernels."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain import lattice as lt
from seqtrain import reference
from seqtrain.errors import DerivativeError, FsaError
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.lattice.total_score import operands
from seqtrain.ops.cuda import lattice_layout
from seqtrain.ops.lattice_total import lattice_total
from tests.cuda.emulation import ORDERS, on_emulated_cuda
from tests.fsa.strategies import quick
from tests.lattice.examples import random_acyclic, random_lattice


def value_and_gradients(lattice: lt.Lattice) -> list[torch.Tensor]:
    """Total scores, and their gradients to arc weights and final weights."""
    weights, finals = (w.detach().clone().requires_grad_() for w in (lattice.weights, lattice.final_weights))
    value = lt.total_score(lattice.with_weights(weights, finals))
    return [value.detach(), *torch.autograd.grad(value.sum(), (weights, finals))]


def large_lattice(seed: int, *, batch: int = 2) -> lt.Lattice:
    """Levels of more states than a block has lanes for, and states with more arcs than lanes; others with few."""
    random = np.random.default_rng(seed)
    graphs = []
    for b in range(batch):
        width, levels = (150, 4) if b % 2 == 0 else (3, 60)
        source = np.repeat(np.arange(levels * width), 30 if b % 2 else 4)
        target = (source // width + 1) * width + random.integers(0, width, source.size)
        onward = np.column_stack([source, target]) + 1
        start = np.column_stack([np.zeros(width, dtype=int), 1 + np.arange(width)])
        rows = np.concatenate([start, onward])
        ends = range(levels * width + 1, (levels + 1) * width + 1)
        graphs.append(
            Fsa(
                np.column_stack([rows, np.zeros(len(rows), dtype=int)]),
                random.normal(0, 2, len(rows)),
                final={s: float(random.normal()) for s in ends},
            )
        )
    return lt.Lattice.from_fsa(FsaBatch.from_list(graphs))


@quick
@given(seed=hs.integers(0, 10**6), dtype=hs.sampled_from([torch.float32, torch.float64]))
def test_random_lattices(seed: int, dtype: torch.dtype) -> None:
    lattice = random_lattice(range(seed, seed + 4), dtype=dtype)
    expected = value_and_gradients(lattice)
    with on_emulated_cuda("shuffled") as cuda:
        found = value_and_gradients(lattice)
    assert [name for name, *_ in cuda.launched] == [
        b"lattice_total_weights", b"lattice_total_sweep", b"lattice_total_posteriors"
    ]  # fmt: skip
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12 if dtype == torch.float64 else 1e-6, atol=1e-12)


def test_the_reference() -> None:
    lattice = random_lattice(range(12))
    with on_emulated_cuda("descending"):
        value, by_arc, by_final = value_and_gradients(lattice)
    for b, fsa in enumerate(lattice.to_fsa()):
        exact = reference.lattice_total_score(fsa)
        assert value[b].item() == pytest.approx(exact.score, abs=1e-12)
        own = slice(*lattice.arc_offsets[b : b + 2].tolist())
        np.testing.assert_allclose(by_arc[own].numpy(), exact.weights, atol=1e-12)
        own = slice(*lattice.final_offsets[b : b + 2].tolist())
        np.testing.assert_allclose(by_final[own].numpy(), exact.final_weights, atol=1e-12)


@pytest.mark.parametrize("largest_shared", [99 << 10, 256])
def test_large_lattices_with_and_without_shared_memory(largest_shared: int) -> None:
    lattice = large_lattice(3)
    expected = value_and_gradients(lattice)
    with on_emulated_cuda("shuffled", largest_shared=largest_shared) as cuda:
        found = value_and_gradients(lattice)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    name, blocks, threads, shared = cuda.launched[1]
    assert (name, blocks, threads) == (b"lattice_total_sweep", 4, 512)
    assert shared == (256 if largest_shared == 256 else 256 + 16 * int(lattice.state_offsets.diff().max()))


def test_the_same_bits_in_any_order_with_and_without_gradient() -> None:
    lattice = large_lattice(5)
    with on_emulated_cuda():
        first = value_and_gradients(lattice)
    for order in ORDERS:
        with on_emulated_cuda(order) as cuda:
            alone = lt.total_score(lattice)
            assert [name for name, *_ in cuda.launched] == [b"lattice_total_weights", b"lattice_total_sweep"]
            found = value_and_gradients(lattice)
        assert torch.equal(alone, first[0])
        assert all(torch.equal(a, b) for a, b in zip(found, first, strict=True))


def test_scores_far_from_zero_keep_their_digits() -> None:
    chain = np.column_stack([np.arange(500), np.arange(1, 501), np.zeros(500, dtype=int)])
    doubled = lt.Lattice.from_arcs(np.repeat(chain, 2, axis=0), np.full(1000, -1e9))
    with on_emulated_cuda():
        value, posteriors = lt.total_score(doubled), lt.arc_posteriors(doubled)
    assert value.item() == pytest.approx(500 * (np.log(2) - 1e9), rel=1e-12)
    np.testing.assert_allclose(posteriors.numpy(), 0.5, atol=1e-12)


def test_a_missing_barrier_is_caught() -> None:
    lattice = large_lattice(7)
    found = []
    for order in ORDERS:
        with on_emulated_cuda(order, plant="barrier"):
            found.append(lt.total_score(lattice))
    assert not all(torch.equal(found[0], other) for other in found[1:])


def test_lattices_without_states_arcs_or_paths() -> None:
    nothing = lt.Lattice.from_arcs(np.zeros((0, 3), dtype=int), num_states=1, final={})
    one_state = lt.Lattice.from_arcs(np.zeros((0, 3), dtype=int), num_states=1, final={0: -0.5})
    no_states = lt.Lattice._from_checked(
        nothing._parts() | {"state_offsets": torch.tensor([0, 0]), "frames": nothing.frames[:0]}
    )
    no_lattices = lt.Lattice._from_checked(
        no_states._parts()
        | {f"{kind}_offsets": torch.zeros(1, dtype=torch.int64) for kind in ("arc", "state", "final")}
        | {name: torch.zeros(0, dtype=torch.int64) for name in ("lengths", "truncated")}
    )
    with on_emulated_cuda() as cuda:
        assert lt.total_score(nothing).item() == -np.inf
        assert lt.total_score(one_state).item() == -0.5
        assert lt.total_score(no_states).item() == -np.inf
        assert [g.tolist() for g in value_and_gradients(one_state)] == [[-0.5], [], [1.0]]
        launched = len(cuda.launched)
        assert lt.total_score(no_lattices).shape == (0,)
        assert len(cuda.launched) == launched


def test_faults_are_named() -> None:
    lattice = random_lattice(range(3))
    weights = lattice.weights.clone()
    weights[int(lattice.arc_offsets[1])] = torch.nan
    bad = lt.Lattice._from_checked(lattice._parts() | {"weights": weights})
    finals = torch.full_like(lattice.final_weights, 2e12)
    worse = lt.Lattice._from_checked(lattice._parts() | {"final_weights": finals})
    with on_emulated_cuda():
        with pytest.raises(FsaError, match="weights of lattice 1 hold NaN") as caught:
            lt.total_score(bad)
        assert caught.value.sequence == 1
        with pytest.raises(FsaError, match="weights of lattice 0 hold NaN"):
            lt.total_score(worse)


def test_arcs_out_of_order_are_named() -> None:
    first = random_acyclic(1)
    lattice = lt.Lattice.from_fsa(FsaBatch.from_list([first, first]))
    arcs = lattice.arcs.clone()
    arc = int(lattice.arc_offsets[1]) + 2
    arcs[arc, 1] = arcs[arc, 0]
    finals = lattice.final_states.clone()
    finals[-1] = 99
    with on_emulated_cuda() as cuda:
        with pytest.raises(FsaError, match=r"arc 2 \(.* → .*\) of lattice 1 breaks the order") as caught:
            lt.total_score(lt.Lattice._from_checked(lattice._parts() | {"arcs": arcs}))
        assert (caught.value.sequence, caught.value.arc) == (1, 2)
        with pytest.raises(FsaError, match="final state 99 of lattice 1 is outside its"):
            lt.total_score(lt.Lattice._from_checked(lattice._parts() | {"final_states": finals}))
    assert cuda.launched == []


def test_a_second_derivative_is_refused() -> None:
    lattice = random_lattice(range(4))
    weights = lattice.weights.clone().requires_grad_()
    with on_emulated_cuda():
        value = lt.total_score(lattice.with_weights(weights))
        (gradient,) = torch.autograd.grad(value[value > -torch.inf].sum(), weights, create_graph=True)
        with pytest.raises(DerivativeError, match="no second derivative"):
            gradient.square().sum().backward()


@pytest.mark.torch2  # torch.library.opcheck
def test_operator() -> None:
    parts = list(operands(random_lattice(range(4))))
    parts[1] = parts[1].clone().requires_grad_()
    with on_emulated_cuda():
        torch.library.opcheck(torch.ops.seqtrain.lattice_total.default, (*parts, True))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each layout that is made."""
    found: list[int] = []
    lay_out = lattice_layout._lay_out
    monkeypatch.setattr(lattice_layout, "_lay_out", lambda *given: found.append(1) or lay_out(*given))
    return found


def test_a_batch_is_laid_out_once(made: list[int]) -> None:
    lattice = random_lattice(range(5))
    expected = value_and_gradients(lattice)
    with on_emulated_cuda():
        for _ in range(2):
            found = value_and_gradients(lattice)
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert torch.equal(lt.arc_posteriors(lattice), found[1])
        assert len(made) == 1
        gc.collect()
        before = len(lattice_layout._KEPT)
        del lattice
        gc.collect()
        assert len(lattice_layout._KEPT) == before - 1


def test_totals_and_risks_share_a_layout(made: list[int]) -> None:
    lattice = large_lattice(3)
    with on_emulated_cuda():
        lt.total_score(lattice)
        lt.expected_risk(lattice, lattice.weights)
        lt.expected_risk(lattice, lattice.weights)
    assert len(made) == 1


def test_what_was_written_to_is_laid_out_anew(made: list[int]) -> None:
    inputs = list(operands(large_lattice(3)))
    arcs, finals = inputs[0], inputs[4]
    for write in (
        lambda: None, lambda: arcs[0].copy_(arcs[1]), lambda: finals[:2].copy_(finals[:2].flip(0)),
    ):  # fmt: skip
        write()
        expected = lattice_total(*inputs, True)
        with on_emulated_cuda():
            found = lattice_total(*inputs, True)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert len(made) == 3
    inputs[2] = inputs[2].clone()
    inputs[2][1] -= 1  # the first lattice's last arc is the second one's now
    with on_emulated_cuda(), pytest.raises(FsaError, match=r"arc .* of lattice 1"):
        lattice_total(*inputs, True)
    assert len(made) == 4


def test_what_cannot_be_tracked_is_laid_out_each_time(made: list[int]) -> None:
    with torch.inference_mode():
        lattice = random_lattice(range(3))
        with on_emulated_cuda():
            before = len(lattice_layout._KEPT)
            assert torch.equal(lt.total_score(lattice), lt.total_score(lattice))
            assert len(lattice_layout._KEPT) == before
    assert len(made) == 2
