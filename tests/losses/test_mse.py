"""Mean squared error, of dense targets and of labels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from seqtrain.errors import LabelError
from seqtrain.losses.mse import MSELoss, mse
from tests.fsa.strategies import quick
from tests.losses.frame_examples import (
    Bad,
    Example,
    Values,
    bad_arguments,
    bad_name,
    check_formula,
    check_gradients,
    check_module,
    check_nothing,
    check_refused,
    dtypes,
    labels,
    layouts,
    normal,
    random_example,
    seeds,
)

EXAMPLE = Example(torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.tensor([3, 2]))


def formula(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if targets.dim() == 1:
        targets = (targets[:, None] == torch.arange(outputs.shape[1])).double()
    return ((outputs - targets) ** 2).sum(dim=1) / outputs.shape[1]


@quick
@given(seed=seeds, dtype=dtypes, layout=layouts)
def test_dense(seed: int, dtype: torch.dtype, layout: str) -> None:
    check_formula(mse, formula, random_example(seed, targets=normal, dtype=dtype), layout=layout)


@quick
@given(seed=seeds, dtype=dtypes, layout=layouts)
def test_labels(seed: int, dtype: torch.dtype, layout: str) -> None:
    check_formula(mse, formula, random_example(seed, targets=labels, dtype=dtype), layout=layout)


@pytest.mark.parametrize("targets", [normal, labels])
def test_gradients(targets: Values) -> None:
    check_gradients(mse, random_example(1, targets=targets))


@pytest.mark.parametrize("targets", [normal, labels])
def test_nothing(targets: Values) -> None:
    check_nothing(mse, targets=targets)


def test_module() -> None:
    check_module(MSELoss(), mse, EXAMPLE, "MSELoss(reduction='batch')")


@pytest.mark.parametrize("bad", [*bad_arguments("outputs", EXAMPLE, dense=True)], ids=bad_name)
def test_arguments(bad: Bad) -> None:
    check_refused(mse, EXAMPLE, bad)


def test_a_label_that_is_no_column() -> None:
    with pytest.raises(LabelError, match="targets of utterance 1 hold 4 at frame 0") as caught:
        mse(EXAMPLE.scores, torch.tensor([[0, 1, 2], [4, 0, 0]]), EXAMPLE.lengths)
    error = caught.value
    assert (error.utterance, error.position, error.label, error.num_labels) == (1, 0, 4, 4)
