"""Cross-entropy of values that are normalized by their sum."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from seqtrain.errors import ArgumentError, LabelError
from seqtrain.losses.cross_entropy import cross_entropy
from seqtrain.losses.generic_cross_entropy import GenericCrossEntropyLoss, generic_cross_entropy
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
    positive,
    random_example,
    seeds,
)

EXAMPLE = Example(torch.rand(2, 3, 4), torch.tensor([[0, 1, 2], [3, 0, 9]]), torch.tensor([3, 2]))


def formula(values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -(values[torch.arange(len(values)), targets] / values.sum(dim=1)).log()


@quick
@given(seed=seeds, dtype=dtypes, layout=layouts)
def test_formula(seed: int, dtype: torch.dtype, layout: str) -> None:
    example = random_example(seed, scores=positive, dtype=dtype)
    check_formula(generic_cross_entropy, formula, example, layout=layout)


def test_gradients() -> None:
    check_gradients(generic_cross_entropy, random_example(1, scores=positive))


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_of_exponentials_it_is_cross_entropy(scale: float) -> None:
    """Also where the sum of the exponentials is more than float32 holds."""
    scores = (torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)) * scale).clamp(max=88.0)
    scores[0, 0] = 88.0
    logits = scores.requires_grad_()
    targets = EXAMPLE.targets
    (found,) = torch.autograd.grad(
        generic_cross_entropy(logits.exp(), targets, EXAMPLE.lengths).sum(), logits
    )
    (wanted,) = torch.autograd.grad(cross_entropy(logits, targets, EXAMPLE.lengths).sum(), logits)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        generic_cross_entropy(logits.exp(), targets, EXAMPLE.lengths),
        cross_entropy(logits, targets, EXAMPLE.lengths),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip


def test_a_target_of_value_zero() -> None:
    values = torch.tensor([[[0.0, 1.0, 3.0]]], requires_grad=True)
    loss = generic_cross_entropy(values, torch.tensor([[0]]))
    assert loss.item() == torch.inf
    (gradient,) = torch.autograd.grad(loss, values)
    assert gradient.tolist() == [[[-torch.inf, 0.25, 0.25]]]
    (gradient,) = torch.autograd.grad(generic_cross_entropy(values, torch.tensor([[1]])), values)
    assert gradient.tolist() == [[[0.25, -0.75, 0.25]]]


def test_nothing() -> None:
    check_nothing(generic_cross_entropy)


def test_module() -> None:
    text = "GenericCrossEntropyLoss(reduction='batch')"
    check_module(GenericCrossEntropyLoss(), generic_cross_entropy, EXAMPLE, text)


NEGATIVE, ZERO = EXAMPLE.scores.clone(), EXAMPLE.scores.clone()
NEGATIVE[1, 1, 2], ZERO[0, 1] = -0.5, 0.0


@pytest.mark.parametrize(
    "bad",
    [
        *bad_arguments("values", EXAMPLE, dense=False),
        Bad(
            {"scores": NEGATIVE},
            ArgumentError,
            "values",
            r"of utterance 1 hold -0\.5 at frame 1: they must not",
        ),
        Bad({"scores": ZERO}, ArgumentError, "values", "values of utterance 0 are all 0 at frame 1"),
        Bad({"targets": torch.full((2, 3), 4)}, LabelError, "targets", "of utterance 0 hold 4 at frame 0"),
    ],
    ids=bad_name,
)
def test_arguments(bad: Bad) -> None:
    check_refused(generic_cross_entropy, EXAMPLE, bad)
