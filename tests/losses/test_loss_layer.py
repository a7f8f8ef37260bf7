"""Criteria as layers: what they say of each frame."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqtrain.errors import ArgumentError
from seqtrain.losses.as_is import AsIsLoss
from seqtrain.losses.binary_cross_entropy import BinaryCrossEntropyLoss
from seqtrain.losses.cross_entropy import CrossEntropyLoss
from seqtrain.losses.ctc import CTCLoss
from seqtrain.losses.frame_errors import frame_errors
from seqtrain.losses.generic_cross_entropy import GenericCrossEntropyLoss
from seqtrain.losses.l1 import L1Loss
from seqtrain.losses.loss_layer import LossLayer
from seqtrain.losses.mean_l1 import MeanL1Loss
from seqtrain.losses.mse import MSELoss
from tests.losses.frame_examples import arranged

SCORES, DENSE = torch.rand(2, 3, 4), torch.rand(2, 3, 4)
LABELS, LENGTHS = torch.tensor([[0, 1, 2], [3, 0, 9]]), torch.tensor([3, 2])

CRITERIA = [
    (CrossEntropyLoss, {"label_smoothing": 0.1}, LABELS),
    (CrossEntropyLoss, {"input": "probs"}, DENSE),
    (BinaryCrossEntropyLoss, {"pos_weight": 2.0}, DENSE),
    (GenericCrossEntropyLoss, {}, LABELS),
    (MSELoss, {}, LABELS),
    (MSELoss, {}, DENSE),
    (MeanL1Loss, {}, DENSE),
    (L1Loss, {}, DENSE),
]


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize(("kind", "options", "targets"), CRITERIA)
def test_values(
    kind: type[torch.nn.Module], options: dict[str, Any], targets: torch.Tensor, layout: str
) -> None:
    scores = SCORES.clone().requires_grad_()
    arguments = arranged(scores, targets, LENGTHS, layout)
    criterion = kind(**options)
    values = LossLayer(criterion)(*arguments)
    expected = kind(**options, reduction="per_frame")(*arguments)
    assert torch.equal(values, expected)
    assert values.shape == ((2, 3) if layout == "padded" else (5,))
    if layout == "padded":
        assert values[1, 2] == 0.0
    weights = torch.rand_like(values)
    found, wanted = (
        torch.autograd.grad((weights * tensor).sum(), scores)[0] for tensor in (values, expected)
    )
    assert torch.equal(found, wanted)
    assert criterion.reduction == "batch"


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize(("kind", "options", "targets"), CRITERIA)
def test_errors(
    kind: type[torch.nn.Module], options: dict[str, Any], targets: torch.Tensor, layout: str
) -> None:
    scores = SCORES.clone().requires_grad_()
    arguments = arranged(scores, targets, LENGTHS, layout)
    errors = LossLayer(kind(**options), of="error")(*arguments)
    assert torch.equal(errors, frame_errors(*arguments, reduction="per_frame"))
    assert not errors.requires_grad


def test_all_frames_count_without_lengths() -> None:
    targets = LABELS.clamp(max=3)
    expected = CrossEntropyLoss(reduction="per_frame")(SCORES, targets)
    assert torch.equal(LossLayer(CrossEntropyLoss())(SCORES, targets), expected)


def test_as_is() -> None:
    layer = LossLayer(AsIsLoss())
    values = layer(SCORES, lengths=LENGTHS)
    expected = SCORES.sum(dim=2)
    expected[1, 2] = 0.0
    assert torch.equal(values, expected)
    with pytest.raises(ArgumentError, match="an AsIsLoss takes no targets: pass") as caught:
        layer(SCORES, LENGTHS)
    assert caught.value.argument == "targets"


def test_targets_are_missing() -> None:
    with pytest.raises(ArgumentError, match="a MSELoss needs targets") as caught:
        LossLayer(MSELoss())(SCORES, lengths=LENGTHS)
    assert caught.value.argument == "targets"


def test_representation_and_state() -> None:
    layer = LossLayer(MSELoss(), of="error")
    text = "LossLayer(\n  of='error'\n  (criterion): MSELoss(reduction='per_frame')\n)"
    assert repr(layer) == text
    assert layer.state_dict() == {}


@pytest.mark.parametrize(
    ("arguments", "argument", "message"),
    [
        ({"criterion": CTCLoss()}, "criterion", "must be one of AsIsLoss, .*, which are sums .* got CTCLoss"),
        ({"criterion": MSELoss(), "of": "values"}, "of", "of must be one of 'value', 'error', got 'values'"),
        ({"criterion": AsIsLoss(), "of": "error"}, "of", "an AsIsLoss has none: use of='value'"),
    ],
)
def test_arguments(arguments: dict[str, Any], argument: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        LossLayer(**arguments)
    assert caught.value.argument == argument
