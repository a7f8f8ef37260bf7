"""Mean of absolute errors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from seqtrain.errors import DtypeError
from seqtrain.losses.mean_l1 import MeanL1Loss, mean_l1
from tests.fsa.strategies import quick
from tests.losses.frame_examples import (
    Bad,
    Example,
    bad_arguments,
    bad_name,
    check_formula,
    check_gradients,
    check_module,
    check_nothing,
    check_refused,
    dtypes,
    layouts,
    normal,
    random_example,
    seeds,
)

EXAMPLE = Example(torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.tensor([3, 2]))


def formula(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets).abs().sum(dim=1) / outputs.shape[1]


@quick
@given(seed=seeds, dtype=dtypes, layout=layouts)
def test_formula(seed: int, dtype: torch.dtype, layout: str) -> None:
    check_formula(mean_l1, formula, random_example(seed, targets=normal, dtype=dtype), layout=layout)


def test_gradients() -> None:
    check_gradients(mean_l1, random_example(1, targets=normal))


def test_the_derivative_at_equality_is_zero() -> None:
    outputs = torch.tensor([[[1.0, 2.0, 3.0]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(mean_l1(outputs, torch.tensor([[[1.0, 5.0, 0.0]]])), outputs)
    torch.testing.assert_close(gradient, torch.tensor([[[0.0, -1.0, 1.0]]]) / 3)


def test_nothing() -> None:
    check_nothing(mean_l1, targets=normal)


def test_module() -> None:
    check_module(MeanL1Loss(), mean_l1, EXAMPLE, "MeanL1Loss(reduction='batch')")


@pytest.mark.parametrize("bad", [*bad_arguments("outputs", EXAMPLE, dense=True)], ids=bad_name)
def test_arguments(bad: Bad) -> None:
    check_refused(mean_l1, EXAMPLE, bad)


def test_labels_are_no_targets() -> None:
    with pytest.raises(DtypeError, match=r"targets must be float16, .*, not torch\.int64") as caught:
        mean_l1(EXAMPLE.scores, torch.zeros(2, 3, dtype=torch.int64), EXAMPLE.lengths)
    assert caught.value.argument == "targets"
