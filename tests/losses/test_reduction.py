"""How losses become one number."""

from __future__ import annotations

import pytest
import torch

from seqtrain.errors import ArgumentError
from seqtrain.losses.reduction import REDUCTIONS, check_reduction, reduce

LOSSES = torch.tensor([6.0, 2.0, 4.0])
LENGTHS, TARGET_LENGTHS = torch.tensor([5, 1, 2]), torch.tensor([2, 0, 1])


@pytest.mark.parametrize(
    ("reduction", "expected"), [("sum", 12.0), ("batch", 4.0), ("frames", 1.5), ("targets", 4.0)]
)
def test_each(reduction: str, expected: float) -> None:
    reduced = reduce(LOSSES, reduction, lengths=LENGTHS, target_lengths=TARGET_LENGTHS)
    assert reduced.item() == expected
    assert reduced.shape == ()


def test_none_is_the_losses_themselves() -> None:
    assert reduce(LOSSES, "none", lengths=LENGTHS) is LOSSES


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nothing_reduces_to_zero(reduction: str) -> None:
    """An empty batch, and one without a frame or a target."""
    none = torch.zeros(0, dtype=torch.int64)
    empty = reduce(torch.zeros(0), reduction, lengths=none, target_lengths=none)
    assert empty.sum().item() == 0.0
    zeros = torch.zeros(2, dtype=torch.int64)
    assert reduce(torch.zeros(2), reduction, lengths=zeros, target_lengths=zeros).sum().item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("integer", [torch.int32, torch.int64])
def test_the_dtype_of_the_losses_stays(dtype: torch.dtype, integer: torch.dtype) -> None:
    for reduction in REDUCTIONS:
        reduced = reduce(
            LOSSES.to(dtype),
            reduction,
            lengths=LENGTHS.to(integer),
            target_lengths=TARGET_LENGTHS.to(integer),
        )
        assert reduced.dtype == dtype


@pytest.mark.parametrize("reduction", ["mean", "", "Sum", "utterance"])
def test_unknown_ones(reduction: str) -> None:
    message = f"reduction must be one of 'none', 'sum', 'batch', 'frames', 'targets', got {reduction!r}"
    with pytest.raises(ArgumentError, match=message) as caught:
        check_reduction(reduction)
    assert caught.value.argument == "reduction"


def test_targets_where_there_are_none() -> None:
    with pytest.raises(ArgumentError, match="reduction='targets' needs target lengths"):
        reduce(LOSSES, "targets", lengths=LENGTHS)
    with pytest.raises(ArgumentError, match="must be one of 'none', 'sum', got 'targets'"):
        check_reduction("targets", allowed=("none", "sum"))
