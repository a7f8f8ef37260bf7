"""Binary cross-entropy of logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.errors import ArgumentError, DtypeError
from seqtrain.losses.binary_cross_entropy import BinaryCrossEntropyLoss, binary_cross_entropy
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
    random_example,
    seeds,
    uniform,
)

EXAMPLE = Example(torch.randn(2, 3, 4), torch.rand(2, 3, 4), torch.tensor([3, 2]))


def formula(logits: torch.Tensor, targets: torch.Tensor, weight: float = 1.0) -> torch.Tensor:
    probs = 1 / (1 + torch.exp(-logits))
    return -(weight * targets * probs.log() + (1 - targets) * (1 - probs).log()).mean(dim=1)


@quick
@given(seed=seeds, dtype=dtypes, layout=layouts, weight=hs.sampled_from([None, 0.25, 1.0, 3.0]))
def test_formula(seed: int, dtype: torch.dtype, layout: str, weight: float | None) -> None:
    def criterion(*arguments: Any, reduction: str) -> torch.Tensor:
        return binary_cross_entropy(*arguments, pos_weight=weight, reduction=reduction)

    example = random_example(seed, targets=uniform, dtype=dtype)
    check_formula(criterion, lambda x, t: formula(x, t, weight or 1.0), example, layout=layout)


def test_gradients() -> None:
    def inner(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        """Finite differences stay in [0, 1] there."""
        return 0.1 + 0.8 * torch.rand(shape, generator=generator, dtype=torch.float64)

    check_gradients(binary_cross_entropy, random_example(1, targets=inner))


def test_large_logits() -> None:
    logits = torch.tensor([[[-1e4, 1e4, -1e4, 1e4]]], requires_grad=True)
    loss = binary_cross_entropy(logits, torch.tensor([[[0.0, 1.0, 1.0, 0.0]]]))
    assert loss.item() == pytest.approx(2e4 / 4)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.tolist() == [[[0.0, 0.0, -0.25, 0.25]]]


def test_nothing() -> None:
    check_nothing(binary_cross_entropy, targets=uniform)


def test_module() -> None:
    text = "BinaryCrossEntropyLoss(pos_weight=None, reduction='batch')"
    check_module(BinaryCrossEntropyLoss(), binary_cross_entropy, EXAMPLE, text)
    weighted = BinaryCrossEntropyLoss(pos_weight=2.0, reduction="frames")
    assert torch.equal(weighted(*EXAMPLE), binary_cross_entropy(*EXAMPLE, pos_weight=2.0, reduction="frames"))


ABOVE, BELOW, AT_THE_END = (EXAMPLE.targets.clone() for _ in range(3))
ABOVE[1, 0, 3], BELOW[0, 2, 1], AT_THE_END[1, 2, 0] = 1.5, -0.25, 7.0


@pytest.mark.parametrize(
    "bad",
    [
        *bad_arguments("logits", EXAMPLE, dense=True),
        Bad({"targets": ABOVE}, ArgumentError, "targets", r"of utterance 1 hold 1\.5 at frame 0: .*\[0, 1\]"),
        Bad(
            {"targets": BELOW}, ArgumentError, "targets", r"of utterance 0 hold -0\.25 at frame 2: they must"
        ),
        Bad({"targets": ABOVE.int()}, DtypeError, "targets", r"not torch\.int32"),
        Bad({"pos_weight": 0.0}, ArgumentError, "pos_weight", r"must be positive and finite, got 0\.0"),
        Bad({"pos_weight": torch.nan}, ArgumentError, "pos_weight", "must be positive and finite, got nan"),
    ],
    ids=bad_name,
)
def test_arguments(bad: Bad) -> None:
    check_refused(binary_cross_entropy, EXAMPLE, bad)


def test_targets_past_the_end_may_be_anything() -> None:
    changed = EXAMPLE._replace(targets=AT_THE_END)
    assert torch.equal(binary_cross_entropy(*changed), binary_cross_entropy(*EXAMPLE))


def test_the_modules_options_are_checked() -> None:
    with pytest.raises(ArgumentError, match="pos_weight must be positive"):
        BinaryCrossEntropyLoss(pos_weight=-1.0)
