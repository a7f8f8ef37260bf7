"""CTC on a device: the host emulation's bits, the same bits in every run, and the reference's numbers."""

from __future__ import annotations

import pytest
import torch

import seqtrain as st
from tests.cuda.emulation import on_emulated_cuda
from tests.ops.examples import DTYPES, random_ctc_batch
from tests.ops.gradient import scores_gradient


def loss_and_gradient(batch: tuple[torch.Tensor, ...], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient, back on the host."""
    scores, *rest = batch
    found = scores_gradient(lambda x: st.ctc_loss(x, *rest, normalize=True), scores.to(device))
    return found[0].cpu(), found[1].cpu()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_bits_of_the_host_emulation(dtype: torch.dtype) -> None:
    batch = random_ctc_batch(3, frames=14, targets=5, dtype=dtype)
    with on_emulated_cuda():
        expected = loss_and_gradient(batch, "cpu")
    found = loss_and_gradient(batch, "cuda")
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("targets", [0, 1, 200, 600, 9000])
def test_the_numbers_of_the_cpu(targets: int) -> None:
    batch = random_ctc_batch(targets, batch=3, frames=2 * targets + 50, labels=300, targets=targets)
    for found, expected in zip(
        loss_and_gradient(batch, "cuda"), loss_and_gradient(batch, "cpu"), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_same_bits_in_fifty_runs() -> None:
    batch = random_ctc_batch(5, batch=16, frames=400, labels=500, targets=60)
    first = loss_and_gradient(batch, "cuda")
    for _ in range(49):
        assert all(torch.equal(a, b) for a, b in zip(loss_and_gradient(batch, "cuda"), first, strict=True))


def test_a_hundred_thousand_frames() -> None:
    batch = random_ctc_batch(7, batch=1, frames=100_000, labels=40, targets=500)
    for found, expected in zip(
        loss_and_gradient(batch, "cuda"), loss_and_gradient(batch, "cpu"), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_stream_of_its_own() -> None:
    batch = random_ctc_batch(9, batch=8, frames=200, labels=100, targets=30)
    expected = loss_and_gradient(batch, "cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        found = loss_and_gradient(batch, "cuda")
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_every_device() -> None:
    batch = random_ctc_batch(11)
    expected = loss_and_gradient(batch, "cuda:0")
    for index in range(torch.cuda.device_count()):
        assert all(
            torch.equal(a, b)
            for a, b in zip(loss_and_gradient(batch, f"cuda:{index}"), expected, strict=True)
        )
