"""What training wraps around criteria, on a device: autocast, `torch.compile`, DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import seqtrain as st
from tests.ops.examples import random_ctc_batch

DEVICE = "cuda"


class Step(torch.nn.Module):
    """CTC of a linear layer."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(labels, labels)

    def forward(
        self,
        features: torch.Tensor,
        targets: torch.Tensor,
        lengths: torch.Tensor,
        target_lengths: torch.Tensor,
    ) -> torch.Tensor:
        return st.ctc_loss(
            self.layer(features), targets, lengths, target_lengths, normalize=True, on_infeasible="mask"
        )


def loss_and_gradients(step: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """The losses, and the gradients of their sum to the parameters."""
    loss = step(*batch)
    return [loss.detach(), *torch.autograd.grad(loss.sum(), list(step.parameters()))]


@pytest.fixture
def batch() -> tuple[torch.Tensor, ...]:
    scores, *rest = random_ctc_batch(3)
    return (scores.to(DEVICE), *rest)


def test_autocast(batch: tuple[torch.Tensor, ...]) -> None:
    step = Step(batch[0].shape[-1]).to(DEVICE)
    expected = loss_and_gradients(step, batch)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        found = loss_and_gradients(step, batch)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"
)  # torch's own
@pytest.mark.torch2  # torch.compile
def test_compiled(batch: tuple[torch.Tensor, ...]) -> None:
    step = Step(batch[0].shape[-1]).to(DEVICE)
    torch.compiler.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for a, b in zip(loss_and_gradients(compiled, batch), loss_and_gradients(step, batch), strict=True):
        assert torch.equal(a, b)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """One process is a group, too."""
    torch.distributed.init_process_group(
        "nccl" if DEVICE == "cuda" else "gloo",
        init_method=(tmp_path / "meeting").as_uri(),
        rank=0,
        world_size=1,
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_distributed(batch: tuple[torch.Tensor, ...]) -> None:
    alone = Step(batch[0].shape[-1]).to(DEVICE)
    expected = loss_and_gradients(alone, batch)
    together = torch.nn.parallel.DistributedDataParallel(Step(batch[0].shape[-1]).to(DEVICE))
    loss = together(*batch)
    loss.sum().backward()
    assert torch.equal(loss.detach(), expected[0])
    for parameter, gradient in zip(together.parameters(), expected[1:], strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
