"""The sum over the paths of lattices, against enumeration and the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqtrain import lattice as lt
from seqtrain import reference
from seqtrain.errors import DerivativeError, DtypeError, FsaError
from seqtrain.lattice.total_score import operands
from tests.lattice.examples import enumerate_lattice, random_acyclic, random_lattice

SEEDS = range(40)


def test_equals_enumeration() -> None:
    lattice = random_lattice(SEEDS)
    weights = lattice.weights.clone().requires_grad_()
    finals = lattice.final_weights.clone().requires_grad_()
    value = lt.total_score(lattice.with_weights(weights, finals))
    value[~lattice.empty & (value > -torch.inf)].sum().backward()
    with_paths = 0
    for b, one in enumerate(lattice):
        paths = list(enumerate_lattice(one))
        total = np.logaddexp.reduce([path.score for path in paths]) if paths else -np.inf
        assert value[b].item() == pytest.approx(total, abs=1e-9)
        expected = np.zeros(one.arcs.shape[0])
        ends = dict.fromkeys(one.final_states.tolist(), 0.0)
        for path in paths:
            expected[list(path.arcs)] += np.exp(path.score - total)
            ends[path.final] += np.exp(path.score - total)
        own = slice(*lattice.arc_offsets[b : b + 2].tolist())
        np.testing.assert_allclose(weights.grad[own].numpy(), expected, atol=1e-9)
        own = slice(*lattice.final_offsets[b : b + 2].tolist())
        np.testing.assert_allclose(finals.grad[own].numpy(), list(ends.values()), atol=1e-9)
        with_paths += bool(paths)
    assert with_paths > 20


def test_reference_is_the_operator() -> None:
    lattice = random_lattice(SEEDS)
    value, posteriors = lt.total_score(lattice), lt.arc_posteriors(lattice)
    for b, fsa in enumerate(lattice.to_fsa()):
        exact = reference.lattice_total_score(fsa)
        assert value[b].item() == pytest.approx(exact.score, abs=1e-12)
        own = slice(*lattice.arc_offsets[b : b + 2].tolist())
        np.testing.assert_allclose(posteriors[own].numpy(), exact.weights, atol=1e-12)


def test_scores_far_from_zero_keep_their_digits() -> None:
    lattice = random_lattice(SEEDS)
    for offset in (-1e8, 1e8):
        moved = lattice.with_weights(lattice.weights, lattice.final_weights + offset)
        shift = (lt.total_score(moved) - lt.total_score(lattice)).nan_to_num(nan=offset)
        np.testing.assert_allclose(shift.numpy(), offset, atol=1e-6)
    chain = np.column_stack([np.arange(5000), np.arange(1, 5001), np.zeros(5000, dtype=int)])
    doubled = lt.Lattice.from_arcs(np.repeat(chain, 2, axis=0), np.full(10000, -1e5))
    assert lt.total_score(doubled).item() == pytest.approx(5000 * (np.log(2) - 1e5), rel=1e-7)
    np.testing.assert_allclose(lt.arc_posteriors(doubled).numpy(), 0.5, atol=1e-9)


def test_float32_is_float64_rounded() -> None:
    lattice = random_lattice(SEEDS, dtype=torch.float32)
    value = lt.total_score(lattice)
    assert value.dtype == torch.float32
    double = lattice.with_weights(lattice.weights.double(), lattice.final_weights.double())
    assert torch.equal(value, lt.total_score(double).float())


def test_same_bits_for_any_number_of_threads() -> None:
    lattice = lt.Lattice.from_arcs(*_big())
    many = [lattice] * 3
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append([(lt.total_score(one), lt.arc_posteriors(one)) for one in many])
    torch.set_num_threads(1)
    for other in results[1:]:
        for (a, b), (c, d) in zip(results[0], other, strict=True):
            assert torch.equal(a, c)
            assert torch.equal(b, d)


def _big() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    source = np.repeat(np.arange(2000), 10)
    rows = np.column_stack(
        [source, source + random.integers(1, 30, source.size), random.integers(0, 9, source.size)]
    )
    return rows, random.normal(size=source.size)


def test_gradcheck() -> None:
    lattice = random_lattice(range(6))
    keep = lattice.weights > -torch.inf
    weights = lattice.weights[keep].clone().requires_grad_()
    finals = lattice.final_weights.clone().requires_grad_()

    def value(w: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        every = torch.full_like(lattice.weights, -torch.inf).masked_scatter(keep, w)
        total = lt.total_score(lattice.with_weights(every, f))
        return total[total > -torch.inf]

    assert torch.autograd.gradcheck(value, (weights, finals))


@pytest.mark.torch2  # torch.library.opcheck
@pytest.mark.parametrize("with_gradient", [False, True])
def test_operator(with_gradient: bool) -> None:
    parts = list(operands(random_lattice(range(4))))
    parts[1] = parts[1].clone().requires_grad_(with_gradient)
    torch.library.opcheck(torch.ops.seqtrain.lattice_total.default, (*parts, with_gradient))


def test_second_derivative_is_refused() -> None:
    lattice = random_lattice(range(4))
    weights = lattice.weights.clone().requires_grad_()
    value = lt.total_score(lattice.with_weights(weights))
    (gradient,) = torch.autograd.grad(value[value > -torch.inf].sum(), weights, create_graph=True)
    with pytest.raises(DerivativeError, match="no second derivative"):
        gradient.square().sum().backward()


def test_empty_lattice() -> None:
    nothing = lt.Lattice.from_arcs(np.zeros((0, 3), dtype=int), num_states=1, final={})
    assert lt.total_score(nothing).item() == -np.inf
    one_state = lt.Lattice.from_arcs(np.zeros((0, 3), dtype=int), num_states=1, final={0: -0.5})
    assert lt.total_score(one_state).item() == -0.5
    parts = nothing._parts() | {"state_offsets": torch.tensor([0, 0]), "frames": nothing.frames[:0]}
    no_states = lt.Lattice._from_checked(parts)
    assert no_states.empty.tolist() == [True]
    assert lt.total_score(no_states).item() == -np.inf
    weights = torch.zeros(0, requires_grad=True)
    lt.total_score(no_states.with_weights(weights)).sum().backward()
    assert weights.grad is not None


def test_bad_weights_are_named() -> None:
    lattice = random_lattice(range(3))
    weights = lattice.weights.clone()
    weights[int(lattice.arc_offsets[1])] = torch.nan
    with pytest.raises(FsaError, match="sequence 1, arc 0 has the weight nan"):
        lattice.with_weights(weights)
    parts = lattice._parts() | {"weights": weights}
    with pytest.raises(FsaError, match="weights of lattice 1 hold NaN") as caught:
        lt.total_score(lt.Lattice._from_checked(parts))
    assert caught.value.sequence == 1
    with pytest.raises(DtypeError, match="must be a Lattice, got Fsa"):
        lt.total_score(random_acyclic(0))
