"""Expected loss over n-best hypotheses: its formula, its options, what it refuses."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.errors import ArgumentError, DtypeError, NonFiniteScoresError, ShapeError
from seqtrain.losses.edit_distance import EditDistance
from seqtrain.losses.expected_loss import ExpectedLoss, expected_loss
from tests.fsa.strategies import quick

FLAGS = (
    "normalize_scores", "stop_gradient_of_norm", "divide_by_hypotheses", "subtract_mean_loss",
    "correction_in_gradient_only",
)  # fmt: skip
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-12}

SCORES = torch.tensor([[-1.0, -2.0, -0.5], [-3.0, -1.0, 0.0]])
LOSSES = torch.tensor([[2.0, 0.0, 1.0], [4.0, 3.0, 0.0]])
COUNTS = torch.tensor([3, 2])


def padded(seed: int, batch: int, limit: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Scores, losses, counts; NaN where no hypothesis is, sometimes -inf where one is."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(batch, limit, generator=g, dtype=torch.float64) * 3
    scores[:, 1::2] = scores[:, 1::2].masked_fill(
        torch.rand(batch, limit // 2, generator=g) < 0.2, -torch.inf
    )
    losses = torch.randint(-3, 9, (batch, limit), generator=g).double() / 2
    counts = torch.randint(0, limit + 1, (batch,), generator=g)
    outside = torch.arange(limit) >= counts[:, None]
    return (
        scores.masked_fill(outside, torch.nan).to(dtype),
        losses.masked_fill(outside, torch.nan).to(dtype),
        counts,
    )


def formula(
    scores: torch.Tensor, losses: torch.Tensor, normalize_scores: bool, stop_gradient_of_norm: bool,
    divide_by_hypotheses: bool, subtract_mean_loss: bool, correction_in_gradient_only: bool,
) -> torch.Tensor:  # fmt: skip
    """Of one utterance's hypotheses (N,)."""
    if not len(scores):
        return scores.sum() + losses.sum()
    weights = scores.exp()
    if normalize_scores:
        total = weights.sum()
        weights = weights / (total.detach() if stop_gradient_of_norm else total)
    baseline = losses.mean().detach() if subtract_mean_loss else 0.0
    expected = ((losses - baseline) * weights).sum()
    if subtract_mean_loss and correction_in_gradient_only:
        expected = expected + (baseline * weights).sum().detach()
    return expected / len(scores) if divide_by_hypotheses else expected


@quick
@given(
    seed=hs.integers(0, 2**32),
    batch=hs.integers(0, 4),
    limit=hs.integers(1, 6),
    dtype=hs.sampled_from(DTYPES),
    flags=hs.tuples(*[hs.booleans()] * 5),
)
def test_against_the_formula(
    seed: int, batch: int, limit: int, dtype: torch.dtype, flags: tuple[bool, ...]
) -> None:
    scores, losses, counts = padded(seed, batch, limit, dtype)
    weights = torch.linspace(0.5, 2.0, batch, dtype=torch.float64)
    wide = [tensor.double().requires_grad_() for tensor in (scores, losses)]
    expected = torch.stack(
        [
            formula(wide[0][b, :count], wide[1][b, :count], *flags)
            for b, count in enumerate(counts.tolist())
        ]
    ) if batch else wide[0].sum(dim=1) + wide[1].sum(dim=1)  # fmt: skip
    expected_gradients = torch.autograd.grad((weights * expected).sum(), wide)

    leaves = [tensor.detach().requires_grad_() for tensor in (scores, losses)]
    values = expected_loss(*leaves, num_hypotheses=counts, **dict(zip(FLAGS, flags, strict=True)))  # type: ignore[misc]  # the options are bools
    assert values.dtype == torch.promote_types(dtype, torch.float32)
    tolerance = min(TOLERANCE[dtype], 1e-5)
    torch.testing.assert_close(values.double(), expected.detach(), rtol=tolerance, atol=tolerance)
    gradients = torch.autograd.grad((weights.to(values) * values).sum(), leaves, retain_graph=True)
    outside = torch.arange(limit) >= counts[:, None]
    for found, want in zip(gradients, expected_gradients, strict=True):
        assert found.dtype == dtype
        assert not found[outside].any()
        # Autograd of exp(-inf) in the formula is 0 · NaN nowhere, but its padding isn't looked at either.
        torch.testing.assert_close(found.double(), want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    if dtype in (torch.float32, torch.float64):
        doubled = torch.autograd.grad((weights.to(values) * 2.0 * values).sum(), leaves)
        for one, two in zip(gradients, doubled, strict=True):
            assert torch.equal(2.0 * one, two)


def test_the_default_is_the_expectation_with_its_exact_gradient() -> None:
    """∂E/∂s_k = w_k (L_k - E)."""
    scores = SCORES.double().requires_grad_()
    expected = expected_loss(scores, LOSSES.double())
    weights = SCORES.double().softmax(dim=1)
    torch.testing.assert_close(expected, (weights * LOSSES).sum(dim=1))
    (gradient,) = torch.autograd.grad(expected.sum(), scores)
    torch.testing.assert_close(gradient, weights * (LOSSES - expected.detach()[:, None]))


def test_a_baseline_changes_no_exact_gradient() -> None:
    scores = SCORES.double().requires_grad_()
    gradients = [
        torch.autograd.grad(
            expected_loss(scores, LOSSES.double(), subtract_mean_loss=subtract, reduction="sum"), scores
        )[0]
        for subtract in (False, True)
    ]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12)


def test_scores_far_from_zero() -> None:
    """Log scores of long utterances are below what exp can represent."""
    shifted = expected_loss(SCORES.double() - 5000.0, LOSSES.double())
    torch.testing.assert_close(shifted, expected_loss(SCORES.double(), LOSSES.double()))


@pytest.mark.parametrize("flags", [(), FLAGS[1:], FLAGS[2:4]])
@pytest.mark.parametrize("normalize", [False, True])
def test_gradcheck(flags: tuple[str, ...], normalize: bool) -> None:
    """Of options whose gradient isn't that of the value on purpose, to the losses alone."""
    options: dict[str, Any] = dict.fromkeys(flags, True) | {"normalize_scores": normalize}
    scores, losses, counts = padded(3, 4, 4, torch.float64)
    scores = scores.nan_to_num(neginf=-2.0)
    losses = losses.nan_to_num()
    exact = not (set(flags) & {"stop_gradient_of_norm", "correction_in_gradient_only", "subtract_mean_loss"})
    leaves = (scores.requires_grad_(exact), losses.requires_grad_("subtract_mean_loss" not in flags))
    if any(leaf.requires_grad for leaf in leaves):
        assert torch.autograd.gradcheck(
            lambda s, l: expected_loss(s, l, num_hypotheses=counts, **options), leaves
        )


def test_mixed_precisions() -> None:
    values = expected_loss(SCORES.half(), LOSSES.double())
    assert values.dtype == torch.float64
    torch.testing.assert_close(values, expected_loss(SCORES.half().double(), LOSSES.double()))


def test_an_utterance_without_hypotheses() -> None:
    for flags in ((), FLAGS[1:]):
        for normalize in (False, True):
            leaves = [torch.full((2, 3), torch.nan, requires_grad=True) for _ in range(2)]
            options: dict[str, Any] = dict.fromkeys(flags, True) | {"normalize_scores": normalize}
            values = expected_loss(*leaves, num_hypotheses=torch.tensor([0, 0]), **options)
            assert values.tolist() == [0.0, 0.0]
            assert all(not gradient.any() for gradient in torch.autograd.grad(values.sum(), leaves))


@pytest.mark.parametrize("reduction", ["none", "sum", "batch"])
def test_reductions(reduction: str) -> None:
    values = expected_loss(SCORES, LOSSES, num_hypotheses=COUNTS)
    expected = values if reduction == "none" else values.sum() / (2 if reduction == "batch" else 1)
    found = expected_loss(SCORES, LOSSES, num_hypotheses=COUNTS, reduction=reduction)
    assert torch.equal(found, expected)
    module = ExpectedLoss(reduction=reduction)
    assert torch.equal(module(SCORES, LOSSES, num_hypotheses=COUNTS), expected)


@pytest.mark.parametrize("flag", [*FLAGS, None])
def test_the_module_keeps_its_options(flag: str | None) -> None:
    options: dict[str, Any] = {"subtract_mean_loss": True}
    if flag is not None:
        options[flag] = flag != "normalize_scores"
    leaf = SCORES.clone().requires_grad_()
    pairs = (
        expected_loss(leaf, LOSSES, **options, reduction="batch"),
        ExpectedLoss(**options)(leaf, LOSSES),
    )
    assert torch.equal(*pairs)
    assert torch.equal(*(torch.autograd.grad(value, leaf)[0] for value in pairs))


def test_an_inner_loss() -> None:
    """Minimum word error rate training: edit distances of three hypotheses for each of two references."""
    hypotheses = torch.tensor([[1, 2, 3], [1, 2, 2], [4, 0, 0], [5, 6, 0], [5, 0, 0], [6, 5, 0]])
    hypothesis_lengths = torch.tensor([3, 3, 1, 2, 1, 2])
    references = torch.tensor([[1, 2, 3], [5, 6, 0]]).repeat_interleave(3, dim=0)
    inputs = hypotheses, references, hypothesis_lengths, torch.tensor([3, 2]).repeat_interleave(3)
    distances = torch.tensor([[0.0, 1.0, 3.0], [0.0, 1.0, 2.0]])
    expected = expected_loss(SCORES, distances, num_hypotheses=COUNTS, reduction="batch")
    module = ExpectedLoss(EditDistance(reduction="none"))
    assert torch.equal(module(SCORES, *inputs, num_hypotheses=COUNTS), expected)
    table = ExpectedLoss(lambda *tensors: distances)
    assert torch.equal(table(SCORES, *inputs, num_hypotheses=COUNTS), expected)
    with pytest.raises(
        ShapeError, match=r"one loss for each of \(2, 3\) .*, got \(\): .* reduction='none'"
    ) as e:
        ExpectedLoss(EditDistance())(SCORES, *inputs)
    assert e.value.argument == "loss"


def test_gradients_reach_an_inner_loss() -> None:
    inner = torch.nn.Linear(4, 1)
    module = ExpectedLoss(torch.nn.Sequential(inner, torch.nn.Flatten(0)))
    module(SCORES, torch.ones(6, 4)).backward()
    assert inner.bias.grad is not None
    assert inner.bias.grad.item() == pytest.approx(1.0)
    assert set(module.state_dict()) == {"loss.0.weight", "loss.0.bias"}


def test_representation_and_copies() -> None:
    module = ExpectedLoss(EditDistance(reduction="none"), subtract_mean_loss=True)
    assert repr(module) == (
        "ExpectedLoss(\n  normalize_scores=True, stop_gradient_of_norm=False, divide_by_hypotheses=False, "
        "subtract_mean_loss=True, correction_in_gradient_only=False, reduction='batch'\n"
        "  (loss): EditDistance(reduction='none')\n)"
    )
    for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert repr(other) == repr(module)


@pytest.mark.parametrize("inputs", [(), (LOSSES, LOSSES)])
def test_without_an_inner_loss_losses_are_passed(inputs: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(
        ArgumentError, match=rf"the losses \(B, N\) must be passed .* got {len(inputs)} inputs"
    ):
        ExpectedLoss()(SCORES, *inputs)


def changed(tensor: torch.Tensor, value: float, *places: tuple[int, int]) -> torch.Tensor:
    tensor = tensor.clone()
    for place in places:
        tensor[place] = value
    return tensor


@pytest.mark.parametrize(
    ("changes", "error", "argument", "message"),
    [
        ({"scores": SCORES.long()}, DtypeError, "scores", r"floats, got torch\.int64"),
        ({"losses": LOSSES.int()}, DtypeError, "losses", r"floats, got torch\.int32"),
        ({"losses": [[1.0]]}, DtypeError, "losses", "floats, got list"),
        ({"scores": SCORES[0]}, ShapeError, "scores", r"shape \(B, N\), N ≥ 1, got \(3,\)"),
        ({"scores": SCORES[:, :0]}, ShapeError, "scores", r"N ≥ 1, got \(2, 0\)"),
        ({"losses": LOSSES[:, :2]}, ShapeError, "losses", r"shape \(2, 3\), like the scores, got \(2, 2\)"),
        ({"num_hypotheses": torch.tensor([3, 4])}, ShapeError, "num_hypotheses", r"\[1\] = 4 must lie in 0 … 3"),
        ({"num_hypotheses": torch.tensor([3])}, ShapeError, "num_hypotheses", r"shape \(2\), got \(1,\)"),
        ({"num_hypotheses": torch.ones(2)}, DtypeError, "num_hypotheses", "an integer tensor"),
        ({"reduction": "targets"}, ArgumentError, "reduction", "'none', 'sum', 'batch', got 'targets'"),
    ],
)  # fmt: skip
def test_bad_input(changes: dict[str, Any], error: type[ArgumentError], argument: str, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        expected_loss(**{"scores": SCORES, "losses": LOSSES} | changes)
    assert type(caught.value) is error
    assert caught.value.argument == argument


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("scores", "losses", "argument", "place", "message"),
    [
        (changed(SCORES, math.nan, (1, 1)), LOSSES, "scores", (1, 1), r"NaN or \+inf at hypothesis 1"),
        (changed(SCORES, math.inf, (0, 2)), LOSSES, "scores", (0, 2), r"NaN or \+inf at hypothesis 2"),
        (SCORES, changed(LOSSES, math.nan, (0, 1)), "losses", (0, 1), "NaN or an infinity at hypothesis 1"),
        (SCORES, changed(LOSSES, math.inf, (1, 0)), "losses", (1, 0), "NaN or an infinity at hypothesis 0"),
        (changed(SCORES, -math.inf, (1, 0), (1, 1)), LOSSES, "scores", (1, 0), "utterance 1 are all -inf"),
    ],
)  # fmt: skip
def test_values_that_are_no_numbers(
    scores: torch.Tensor,
    losses: torch.Tensor,
    argument: str,
    place: tuple[int, int],
    message: str,
    normalize: bool,
) -> None:
    with pytest.raises(NonFiniteScoresError, match=message) as caught:
        expected_loss(scores, losses, num_hypotheses=COUNTS, normalize_scores=normalize)
    assert caught.value.argument == argument
    assert (caught.value.utterance, caught.value.frame) == place


def test_options_are_checked_at_construction() -> None:
    with pytest.raises(ArgumentError, match="reduction"):
        ExpectedLoss(reduction="frames")
