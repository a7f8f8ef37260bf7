"""The CTC criterion: its arguments, its module, its reductions."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import seqtrain as st
from seqtrain.errors import (
    ArgumentError,
    DtypeError,
    InfeasibleError,
    LabelError,
    NonFiniteScoresError,
    ShapeError,
)
from seqtrain.losses import CTCLoss
from tests.ops.examples import random_ctc_batch
from tests.ops.gradient import scores_gradient

SCORES = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
TARGETS, LENGTHS, TARGET_LENGTHS = (
    torch.tensor([[1, 2], [3, 0]]),
    torch.tensor([6, 4]),
    torch.tensor([2, 1]),
)


def ctc(**changes: Any) -> torch.Tensor:
    """The loss of the example with some arguments changed."""
    arguments: dict[str, Any] = {
        "scores": SCORES, "targets": TARGETS, "lengths": LENGTHS, "target_lengths": TARGET_LENGTHS
    }  # fmt: skip
    return st.ctc_loss(**arguments | changes)


def test_agrees_with_torch() -> None:
    """Where torch is exact: a short utterance in double precision."""
    scores, targets, lengths, target_lengths = random_ctc_batch(1, dtype=torch.float64)
    loss, gradient = scores_gradient(
        lambda x: st.ctc_loss(x, targets, lengths, target_lengths, normalize=True), scores
    )
    leaf = scores.clone().requires_grad_()
    other = torch.nn.functional.ctc_loss(
        leaf.log_softmax(-1).transpose(0, 1), targets, lengths, target_lengths, reduction="none"
    )
    (expected,) = torch.autograd.grad(other.sum(), leaf)
    torch.testing.assert_close(loss, other.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_normalize_is_log_softmax() -> None:
    scores, *rest = random_ctc_batch(2, dtype=torch.float64)
    fused = scores_gradient(lambda x: st.ctc_loss(x, *rest, normalize=True), scores)
    apart = scores_gradient(lambda x: st.ctc_loss(x.log_softmax(-1), *rest), scores)
    torch.testing.assert_close(fused[0], apart[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fused[1], apart[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message", "fields"),
    [
        ({"targets": torch.tensor([[1, 2], [4, 0]])}, r"targets\[1, 0\] = 4 is not a column", (1, 0, 4, 4)),
        (
            {"targets": torch.tensor([[1, -1], [3, 0]])},
            r"targets\[0, 1\] = -1 is not a column",
            (0, 1, -1, 4),
        ),
        ({"targets": torch.tensor([[1, 0], [3, 0]])}, r"targets\[0, 1\] = 0 is the blank", (0, 1, 0, 4)),
        ({"blank": 3}, r"targets\[1, 0\] = 3 is the blank \(3\), which may not stand", (1, 0, 3, 4)),
        ({"blank": 4}, "blank = 4 is not a column of the scores, which have 4 labels", (-1, -1, 4, 4)),
        ({"blank": -1}, "blank = -1 is not a column", (-1, -1, -1, 4)),
    ],
)
def test_labels(changes: dict[str, Any], message: str, fields: tuple[int, int, int, int]) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        ctc(**changes)
    error = caught.value
    assert (error.utterance, error.position, error.label, error.num_labels) == fields
    assert error.argument == ("blank" if error.utterance < 0 else "targets")


@pytest.mark.parametrize(
    ("changes", "error", "argument", "message"),
    [
        ({"targets": TARGETS.float()}, DtypeError, "targets", r"an integer tensor, got torch\.float32"),
        ({"targets": TARGETS[0]}, ShapeError, "targets", r"shape \(2, any\), got \(2,\)"),
        ({"targets": TARGETS[:1]}, ShapeError, "targets", r"shape \(2, any\), got \(1, 2\)"),
        ({"target_lengths": TARGET_LENGTHS.bool()}, DtypeError, "target_lengths", r"got torch\.bool"),
        ({"target_lengths": torch.tensor([2])}, ShapeError, "target_lengths", r"shape \(2\), got \(1,\)"),
        (
            {"target_lengths": torch.tensor([2, 3])},
            ShapeError,
            "target_lengths",
            r"\[1\] = 3, but targets have 2",
        ),
        ({"target_lengths": torch.tensor([-1, 1])}, ShapeError, "target_lengths", r"\[0\] = -1, but targets"),
        (
            {"lengths": torch.tensor([6, 7])},
            ShapeError,
            "lengths",
            r"lengths\[1\] = 7, but scores have 6 frames",
        ),
        ({"reduction": "mean"}, ArgumentError, "reduction", "must be one of 'none', 'sum', .*, got 'mean'"),
        ({"tags": ["a"]}, ShapeError, "tags", "tags must name 2 utterances, got 1"),
        ({"paths": "some"}, ArgumentError, "paths", r"'all' \(their sum\) or 'best', got 'some'"),
        (
            {"paths": "best", "gradient_out": SCORES},
            ArgumentError,
            "gradient_out",
            "serves the sum over all paths with label loops alone",
        ),
        ({"blank": 0.5}, DtypeError, "blank", "blank must be an int, got 0.5"),
    ],
)
def test_arguments(changes: dict[str, Any], error: type[ArgumentError], argument: str, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        ctc(**changes)
    assert caught.value.argument == argument


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers(value: float, normalize: bool) -> None:
    scores = SCORES.clone()
    scores[1, 2, 3] = value
    with pytest.raises(NonFiniteScoresError, match=r"scores of utterance 1 hold NaN or \+inf") as caught:
        ctc(scores=scores, normalize=normalize)
    assert (caught.value.utterance, caught.value.frame) == (1, 2)
    scores = SCORES.clone()
    scores[1, 5] = value
    assert torch.equal(ctc(scores=scores, normalize=normalize), ctc(normalize=normalize))


def test_a_label_that_counts_for_the_sum_alone() -> None:
    """Label 3 is no target of utterance 0: NaN there matters to log-softmax alone."""
    scores = SCORES.clone()
    scores[0, 0, 3] = torch.nan
    assert torch.equal(ctc(scores=scores), ctc())
    with pytest.raises(NonFiniteScoresError):
        ctc(scores=scores, normalize=True)


@pytest.mark.parametrize("reduction", ["none", "sum", "batch", "frames", "targets"])
def test_reductions(reduction: str) -> None:
    losses = ctc()
    divisor = {"none": 1, "sum": 1, "batch": 2, "frames": 10, "targets": 3}[reduction]
    expected = losses if reduction == "none" else losses.sum() / divisor
    assert torch.equal(ctc(reduction=reduction), expected)
    module = CTCLoss(normalize=False, reduction=reduction)
    assert torch.equal(module(SCORES, TARGETS, LENGTHS, TARGET_LENGTHS), expected)


def test_a_masked_utterance_counts_in_the_divisor() -> None:
    """The weight of the others doesn't depend on it."""
    losses = ctc()
    short = torch.tensor([1, 4])
    assert torch.equal(ctc(lengths=short, on_infeasible="mask", reduction="batch"), losses[1] / 2)


def test_the_modules_defaults() -> None:
    module = CTCLoss()
    expected = ctc(normalize=True).sum() / 2
    assert torch.equal(module(SCORES, TARGETS, LENGTHS, TARGET_LENGTHS), expected)
    text = "CTCLoss(blank=0, normalize=True, label_loop=True, paths='all', reduction='batch', on_infeasible='raise')"
    assert repr(module) == text
    assert not list(module.parameters())
    assert module.state_dict() == {}


def test_the_module_counts_and_names() -> None:
    module = CTCLoss(on_infeasible="mask")
    module(SCORES, TARGETS, torch.tensor([1, 4]), TARGET_LENGTHS, tags=["a", "b"])
    module(SCORES, TARGETS, LENGTHS, TARGET_LENGTHS)
    assert (module.infeasible.infeasible, module.infeasible.utterances) == (1, 4)
    with pytest.raises(InfeasibleError, match=r"utterance 0 \(a\): 1 frames given, needs 2"):
        CTCLoss()(SCORES, TARGETS, torch.tensor([1, 4]), TARGET_LENGTHS, tags=["a", "b"])


@pytest.mark.parametrize(
    "options",
    [{"reduction": "mean"}, {"on_infeasible": "drop"}, {"paths": "some"}],
    ids=["reduction", "on_infeasible", "paths"],
)
def test_options_are_checked_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        CTCLoss(**options)
    assert caught.value.argument in options


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_copies_of_the_module(how: str) -> None:
    module = CTCLoss(blank=2, on_infeasible="mask", reduction="frames")
    module(SCORES, torch.tensor([[1, 1], [3, 0]]), torch.tensor([2, 4]), TARGET_LENGTHS)
    other = pickle.loads(pickle.dumps(module)) if how == "pickle" else copy.deepcopy(module)
    assert repr(other) == repr(module)
    assert (other.infeasible.infeasible, other.infeasible.utterances) == (1, 2)
    other(SCORES, torch.tensor([[1, 1], [3, 0]]), torch.tensor([2, 4]), TARGET_LENGTHS)
    assert (other.infeasible.infeasible, module.infeasible.infeasible) == (2, 1)
    assert other.infeasible.handle != module.infeasible.handle


def test_autocast_leaves_the_loss_in_single_precision() -> None:
    layer = torch.nn.Linear(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = layer(SCORES)
        loss = CTCLoss()(logits, TARGETS, LENGTHS, TARGET_LENGTHS)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    torch.autograd.backward(loss)
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all()
