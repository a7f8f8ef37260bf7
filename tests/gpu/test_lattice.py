"""Lattices on a device: the host emulation's bits, the same bits in every run, the numbers of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqtrain.errors import DeviceError, FsaError, InfeasibleError
from seqtrain.fsa import Fsa
from seqtrain.lattice import Lattice, expected_risk, total_score
from seqtrain.losses import LatticeRiskLoss
from tests.cuda.emulation import on_emulated_cuda
from tests.cuda.test_criteria import LATTICE_CRITERIA, lattice_of
from tests.cuda.test_lattice import large_lattice
from tests.lattice.examples import random_lattice


def values_and_gradients(lattice: Lattice, device: str) -> list[torch.Tensor]:
    """Total scores and expected risks with their gradients to weights and risks, back on the host."""
    there = lattice.to(device)
    generator = torch.Generator().manual_seed(1)
    inputs = [w.detach().clone() for w in (there.weights, there.final_weights)]
    inputs += [torch.randn(w.shape, dtype=w.dtype, generator=generator).to(device) for w in inputs]
    weights, finals, *risks = (x.requires_grad_() for x in inputs)
    given = there.with_weights(weights, finals)
    total = total_score(given)
    risk = expected_risk(given, *risks, on_infeasible="mask")
    found = [total.detach(), *torch.autograd.grad(total.sum(), (weights, finals))]
    found += [risk.detach(), *torch.autograd.grad(risk.sum(), inputs)]
    return [tensor.cpu() for tensor in found]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def long_lattice(levels: int, width: int, fan: int) -> Lattice:
    """One lattice of that many levels of states."""
    random = np.random.default_rng(levels)
    source = np.arange(levels * width).repeat(fan)
    target = (source // width + 1) * width + random.integers(0, width, source.size)
    rows = np.column_stack([source, target, np.zeros(source.size, dtype=int)])
    ends = range(levels * width, (levels + 1) * width)
    return Lattice.from_fsa(Fsa(rows, random.normal(size=source.size), final=dict.fromkeys(ends, 0.0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_bits_of_the_host_emulation(dtype: torch.dtype) -> None:
    for lattice in (random_lattice(range(8), dtype=dtype), large_lattice(3)):
        with on_emulated_cuda():
            expected = values_and_gradients(lattice, "cpu")
        assert same(values_and_gradients(lattice, "cuda"), expected)


@pytest.mark.parametrize(("levels", "width", "fan"), [(1, 1, 1), (200, 20, 5), (50, 600, 30), (20_000, 3, 2)])
def test_the_numbers_of_the_cpu(levels: int, width: int, fan: int) -> None:
    lattice = long_lattice(levels, width, fan)
    for found, expected in zip(
        values_and_gradients(lattice, "cuda"), values_and_gradients(lattice, "cpu"), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_same_bits_in_fifty_runs() -> None:
    lattice = large_lattice(5, batch=16)
    first = values_and_gradients(lattice, "cuda")
    assert all(same(values_and_gradients(lattice, "cuda"), first) for _ in range(49))


def test_a_stream_of_its_own() -> None:
    lattice = large_lattice(7)
    expected = values_and_gradients(lattice, "cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        found = values_and_gradients(lattice, "cuda")
    assert same(found, expected)


def test_every_device() -> None:
    lattice = large_lattice(9)
    expected = values_and_gradients(lattice, "cuda:0")
    for index in range(torch.cuda.device_count()):
        assert same(values_and_gradients(lattice, f"cuda:{index}"), expected)


@pytest.mark.parametrize("name", LATTICE_CRITERIA)
def test_criteria(name: str) -> None:
    weights = 2 * torch.randn(3, 243, generator=torch.Generator().manual_seed(5))
    found = []
    for device in ("cuda", "cpu"):
        leaf = weights.clone().requires_grad_()
        value = LATTICE_CRITERIA[name](lattice_of(leaf).to(device)).sum()
        assert value.device.type == device
        found.append([value.detach().cpu(), *torch.autograd.grad(value, leaf)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_errors_are_those_of_the_cpu() -> None:
    lattice = random_lattice(range(3))
    weights = lattice.weights.clone()
    weights[int(lattice.arc_offsets[1])] = torch.nan
    bad = Lattice._from_checked(lattice._parts() | {"weights": weights}).to("cuda")
    with pytest.raises(FsaError, match="weights of lattice 1 hold NaN"):
        total_score(bad)
    with pytest.raises(FsaError, match=r"the weight of arc 0 \(.*\) of lattice 1 is nan"):
        expected_risk(bad, torch.zeros_like(bad.weights))
    with pytest.raises(DeviceError, match="risks is on cpu, the lattice on cuda"):
        expected_risk(lattice.to("cuda"), torch.zeros_like(lattice.weights))
    dead = Lattice.from_fsa(Fsa([[0, 1, 0]], final={})).to("cuda")
    with pytest.raises(InfeasibleError, match="utterance 0"):
        LatticeRiskLoss()(dead, torch.ones(1, device="cuda"))
