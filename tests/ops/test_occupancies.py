"""From occupancies to dense gradients: each element once, wherever rows stand in memory, and nothing beside them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.ops.arguments import INFEASIBLE
from tests.fsa.strategies import quick
from tests.ops.examples import DTYPES


def check(
    seed: int,
    batch: int,
    frames: int,
    labels: int,
    width: int,
    shift: int,
    dtype: torch.dtype,
    *,
    packed: bool = False,
) -> None:
    """Rows begin `shift` elements behind the beginning of memory, and stand among NaN."""
    random = torch.Generator().manual_seed(seed)
    double = torch.float64 if dtype == torch.float64 else torch.float32
    lengths = torch.randint(0, frames + 1, (batch,), generator=random)
    used = torch.randint(1, width + 1, (batch,), generator=random)
    columns = torch.full((batch, width), -1)
    for b in range(batch):
        columns[b, : used[b]] = torch.randperm(labels, generator=random)[: used[b]].sort().values
    occupancies = torch.rand(batch, frames, width, generator=random, dtype=double)
    weight = torch.randn(batch, generator=random, dtype=torch.float64)
    status = torch.where(torch.rand(batch, generator=random) < 0.2, INFEASIBLE, 0)

    expected = torch.zeros(batch, frames, labels, dtype=dtype)
    for b in range(batch):
        length, count = int(lengths[b]), int(used[b])
        occupancies[b, length:] = torch.nan
        if status[b] == 0:
            expected[b, :length, columns[b, :count]] = (
                weight[b].to(double) * occupancies[b, :length, :count]
            ).to(dtype)
    offsets, shape = None, expected.shape
    if packed:
        offsets = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)))
        alive = torch.arange(frames) < lengths[:, None]
        expected, occupancies = expected[alive], occupancies[alive]
        shape = expected.shape
    memory = torch.full((expected.numel() + shift + 40,), torch.nan, dtype=dtype)
    gradient = memory[shift : shift + expected.numel()].view(shape)
    torch.ops.seqtrain.full_sum_scores_backward_into(
        weight, gradient, torch.zeros(1), offsets, lengths, occupancies, columns, status, gradient
    )
    assert torch.equal(gradient, expected)
    assert memory[:shift].isnan().all()
    assert memory[shift + expected.numel() :].isnan().all()


@quick
@given(
    seed=hs.integers(0, 2**32),
    labels=hs.integers(1, 70),
    width=hs.integers(1, 40),
    shift=hs.integers(0, 17),
    dtype=hs.sampled_from(DTYPES),
    packed=hs.booleans(),
)
def test_any_place_and_size(
    seed: int, labels: int, width: int, shift: int, dtype: torch.dtype, packed: bool
) -> None:
    check(seed, 4, 6, labels, min(width, labels), shift, dtype, packed=packed)


@pytest.mark.parametrize("labels", [1499, 1504])
def test_rows_that_are_written_past_the_caches(labels: int) -> None:
    check(1, 3, 2000, labels, 60, 3, torch.float32)


@pytest.mark.parametrize("width", [16, 100])
def test_every_label_is_a_column(width: int) -> None:
    check(2, 3, 9, width, width, 1, torch.float32)
    check(2, 3, 9, width, width, 1, torch.float64)


def test_rows_that_do_not_follow_one_another() -> None:
    memory = torch.full((2, 5, 40), torch.nan)
    gradient = memory[:, :, 3:33]
    occupancies = torch.rand(2, 5, 20)
    columns = torch.stack((torch.arange(20), torch.arange(10, 30)))
    arguments = (torch.ones(2), gradient, torch.zeros(1), None, torch.tensor([5, 4]), occupancies, columns)
    torch.ops.seqtrain.full_sum_scores_backward_into(*arguments, torch.zeros(2, dtype=torch.int64), gradient)
    expected = torch.zeros(2, 5, 30)
    expected[0, :, :20], expected[1, :4, 10:] = occupancies[0], occupancies[1, :4]
    assert torch.equal(gradient, expected)
    assert memory[:, :, :3].isnan().all()
    assert memory[:, :, 33:].isnan().all()
