"""Values that are the loss themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.errors import ArgumentError, DtypeError, NonFiniteScoresError, ShapeError
from seqtrain.losses.as_is import AsIsLoss, as_is
from seqtrain.losses.reduction import FRAME_REDUCTIONS
from seqtrain.scores import Packed, Scores
from tests.fsa.strategies import quick
from tests.losses.frame_examples import (
    check_formula,
    check_nothing,
    dtypes,
    layouts,
    random_example,
    seeds,
)

VALUES, LENGTHS = torch.randn(2, 3, 4), torch.tensor([3, 2])
axes = hs.sampled_from(["none", "one", "two"])


def shaped(values: Scores, axes: str) -> Scores:
    """(…, F) values with as many axes behind the frames; the first feature alone, if none."""
    if isinstance(values, Packed):
        return values._replace(values=_shaped(values.values, axes))
    return _shaped(values, axes)


def _shaped(values: torch.Tensor, axes: str) -> torch.Tensor:
    return {"none": lambda: values[..., 0], "one": lambda: values, "two": lambda: values.unsqueeze(-2)}[
        axes
    ]()


@quick
@given(seed=seeds, dtype=dtypes, layout=layouts, axes=axes)
def test_formula(seed: int, dtype: torch.dtype, layout: str, axes: str) -> None:
    def criterion(
        values: Scores, _: torch.Tensor, lengths: torch.Tensor | None, **options: Any
    ) -> torch.Tensor:
        return as_is(shaped(values, axes), lengths, **options)

    def formula(values: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return values[:, 0] if axes == "none" else values.sum(dim=1)

    check_formula(criterion, formula, random_example(seed, dtype=dtype), layout=layout)


@pytest.mark.parametrize("axes", ["none", "one", "two"])
def test_nothing(axes: str) -> None:
    def criterion(
        values: Scores, _: torch.Tensor, lengths: torch.Tensor | None, **options: Any
    ) -> torch.Tensor:
        return as_is(shaped(values, axes), lengths, **options)

    check_nothing(criterion)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_value_for_each_utterance(dtype: torch.dtype) -> None:
    values = torch.tensor([1.0, -3.0, 8.0], dtype=dtype, requires_grad=True)
    losses = as_is(values)
    assert losses.tolist() == [1.0, -3.0, 8.0]
    assert losses.dtype == torch.promote_types(dtype, torch.float32)
    assert as_is(values, reduction="sum").item() == 6.0
    assert as_is(values, reduction="batch").item() == 2.0
    weights = torch.tensor([1.0, 0.5, 0.0])
    (gradient,) = torch.autograd.grad((weights * losses).sum(), values)
    assert torch.equal(gradient, weights.to(dtype))
    assert as_is(torch.zeros(0)).shape == (0,)
    assert as_is(torch.zeros(0), reduction="batch").item() == 0.0


def test_gradients() -> None:
    values = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: as_is(x, LENGTHS), values)


def test_module() -> None:
    module = AsIsLoss()
    assert torch.equal(module(VALUES, LENGTHS), as_is(VALUES, LENGTHS, reduction="batch"))
    assert repr(module) == "AsIsLoss(reduction='batch')"
    for reduction in FRAME_REDUCTIONS:
        assert torch.equal(
            AsIsLoss(reduction=reduction)(VALUES, LENGTHS), as_is(VALUES, LENGTHS, reduction=reduction)
        )
    with pytest.raises(ArgumentError, match="got 'mean'"):
        AsIsLoss(reduction="mean")


HOLED = VALUES.clone()
HOLED[1, 1, 0] = torch.inf


@pytest.mark.parametrize(
    ("arguments", "error", "argument", "message"),
    [
        ((HOLED, LENGTHS), NonFiniteScoresError, "values", "values of utterance 1 hold .* at frame 1"),
        ((HOLED[1, :, 0],), NonFiniteScoresError, "values", "values of utterance 1 hold"),
        ((torch.tensor(1.0),), ShapeError, "values", "got a scalar: it needs no criterion"),
        ((Packed(torch.tensor(1.0), torch.tensor([0, 1])),), ShapeError, "values", "got a scalar"),
        ((torch.zeros(2, 3, 0),), ShapeError, "values", r"F ≥ 1, got \(2, 3, 0\)"),
        ((VALUES.int(),), DtypeError, "values", r"got torch\.int32"),
        ((1.0,), DtypeError, "values", r"values must be a torch\.Tensor, got float"),
        ((VALUES, torch.tensor([4, 0])), ShapeError, "lengths", r"lengths\[0\] = 4 must lie in 0 … 3"),
        ((VALUES[:, 0, 0], LENGTHS), ArgumentError, "lengths", r"values \(B,\) .* have no frames: leave"),
    ],
)
def test_arguments(
    arguments: tuple[Any, ...], error: type[ArgumentError], argument: str, message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        as_is(*arguments)
    assert caught.value.argument == argument


@pytest.mark.parametrize("reduction", ["per_frame", "frames"])
def test_values_of_utterances_have_no_frames(reduction: str) -> None:
    message = (
        rf"reduction='{reduction}' needs frames, and values \(B,\) have none: use 'none', 'sum' or 'batch'"
    )
    with pytest.raises(ArgumentError, match=message) as caught:
        as_is(torch.zeros(2), reduction=reduction)
    assert caught.value.argument == "reduction"


def test_unknown_reduction() -> None:
    with pytest.raises(ArgumentError, match=r"must be one of 'per_frame', .*, got 'mean'"):
        as_is(VALUES, reduction="mean")
