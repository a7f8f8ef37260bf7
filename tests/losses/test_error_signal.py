"""A loss whose value and gradient are given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain.errors import (
    ArgumentError,
    DerivativeError,
    DtypeError,
    NonFiniteScoresError,
    ShapeError,
)
from seqtrain.losses import ErrorSignalLoss, error_signal_loss
from tests.fsa.strategies import quick
from tests.ops.examples import DTYPES, offsets_of, packed_rows
from tests.ops.gradient import gradient, scores_gradient

LENGTHS = torch.tensor([4, 0, 2])
GIVEN = torch.tensor([1.5, 0.0, -2.0])


def random_tensor(seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def inside() -> torch.Tensor:
    return (torch.arange(4) < LENGTHS[:, None])[:, :, None]


@quick
@given(seed=hs.integers(0, 2**32), dtype=hs.sampled_from(DTYPES))
def test_value_and_gradient_are_those_given(seed: int, dtype: torch.dtype) -> None:
    receiver, signal = random_tensor(seed, dtype), random_tensor(seed + 1, dtype)
    spoilt = signal.masked_fill(~inside(), torch.nan)
    loss, found = scores_gradient(
        lambda x: error_signal_loss(x, GIVEN, LENGTHS, error_signal=spoilt), receiver
    )
    assert torch.equal(loss, GIVEN.to(loss.dtype))
    assert torch.equal(found, signal * inside())
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@quick
@given(seed=hs.integers(0, 2**32))
def test_an_alignment_before_the_softmax_is_cross_entropy(seed: int) -> None:
    """softmax - z is the gradient of -Σ z log softmax with respect to the logits."""
    logits, alignment = random_tensor(seed), random_tensor(seed + 1).softmax(-1)
    _, found = scores_gradient(
        lambda x: error_signal_loss(
            x, GIVEN, LENGTHS, alignment=alignment, output=x.detach().softmax(-1), reduction="none"
        ),
        logits,
    )
    _, expected = scores_gradient(lambda x: -(alignment * x.log_softmax(-1) * inside()).sum((1, 2)), logits)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_an_alignment_without_output_is_taken_from_the_receiver() -> None:
    output, alignment = random_tensor(1), random_tensor(2)
    _, found = scores_gradient(lambda x: error_signal_loss(x, GIVEN, LENGTHS, alignment=alignment), output)
    assert torch.equal(found, (output - alignment) * inside())


def test_the_signal_goes_through_what_is_in_front_of_the_receiver() -> None:
    logits, signal = random_tensor(3), random_tensor(4)
    _, found = scores_gradient(
        lambda x: error_signal_loss(x.softmax(-1), GIVEN, LENGTHS, error_signal=signal), logits
    )
    _, expected = scores_gradient(lambda x: (x.softmax(-1) * signal * inside()).sum((1, 2)), logits)
    torch.testing.assert_close(found, expected)


def test_scaling_and_weights_of_utterances() -> None:
    receiver, signal = random_tensor(5).requires_grad_(), random_tensor(6)
    weights = torch.tensor([2.0, 5.0, -0.5], dtype=torch.float64)
    losses = error_signal_loss(receiver, GIVEN, LENGTHS, error_signal=signal)
    assert torch.equal(gradient(losses, receiver, weights), weights[:, None, None] * signal * inside())


def test_packed_and_no_lengths() -> None:
    receiver, signal = random_tensor(7), random_tensor(8)
    packed = packed_rows(receiver, LENGTHS).requires_grad_()
    rows = packed_rows(signal, LENGTHS)
    scores = st.Packed(packed, offsets_of(LENGTHS))
    losses = error_signal_loss(scores, GIVEN, error_signal=st.Packed(rows, scores.offsets))
    assert torch.equal(gradient(losses, packed), rows)
    _, found = scores_gradient(lambda x: error_signal_loss(x, GIVEN, error_signal=signal), receiver)
    assert torch.equal(found, signal)


def test_nothing_else_gets_a_gradient() -> None:
    receiver, signal, losses = (
        random_tensor(9),
        random_tensor(10).requires_grad_(),
        GIVEN.clone().requires_grad_(),
    )
    value = error_signal_loss(receiver.requires_grad_(), losses, LENGTHS, error_signal=signal).sum()
    found = torch.autograd.grad(value, [receiver, signal, losses], allow_unused=True)
    assert found[1] is None
    assert found[2] is None


def test_a_skipped_utterance_keeps_its_infinite_loss_and_a_finite_gradient() -> None:
    receiver, signal = random_tensor(11), random_tensor(12)
    losses = torch.tensor([torch.inf, 0.0, 1.0])
    value, found = scores_gradient(
        lambda x: error_signal_loss(x, losses, LENGTHS, error_signal=signal), receiver
    )
    assert value.tolist() == losses.tolist()
    assert found.isfinite().all()


def test_a_second_derivative_is_refused() -> None:
    receiver, signal = random_tensor(13).requires_grad_(), random_tensor(14)
    loss = error_signal_loss(receiver, GIVEN, LENGTHS, error_signal=signal).sum()
    (found,) = torch.autograd.grad(loss, receiver, create_graph=True)
    with pytest.raises(DerivativeError, match="no second derivative"):
        torch.autograd.grad(found.sum(), receiver)


@pytest.mark.parametrize(("reduction", "divisor"), [("sum", 1), ("batch", 3), ("frames", 6)])
def test_reductions_and_the_module(reduction: str, divisor: int) -> None:
    receiver, signal = random_tensor(15), random_tensor(16)
    module = ErrorSignalLoss(reduction=reduction)
    value = module(receiver, GIVEN, LENGTHS, error_signal=signal)
    assert value.item() == pytest.approx(GIVEN.sum().item() / divisor)
    assert repr(module) == f"ErrorSignalLoss(reduction={reduction!r})"


def test_no_utterances() -> None:
    receiver = torch.zeros(0, 4, 5, requires_grad=True)
    loss = error_signal_loss(receiver, torch.zeros(0), error_signal=torch.zeros(0, 4, 5), reduction="batch")
    (found,) = torch.autograd.grad(loss, receiver)
    assert found.shape == (0, 4, 5)


@pytest.mark.parametrize(
    ("changes", "error", "argument", "message"),
    [
        ({"error_signal": None}, ArgumentError, "error_signal", "exactly one of error_signal and alignment"),
        ({"alignment": random_tensor(1)}, ArgumentError, "error_signal", "exactly one of error_signal"),
        ({"output": random_tensor(1)}, ArgumentError, "output", "used with an alignment alone"),
        (
            {"error_signal": random_tensor(1)[:, :3]},
            ShapeError,
            "error_signal",
            r"\(3, 4, 5\), .*got \(3, 3, 5\)",
        ),
        (
            {"error_signal": random_tensor(1).long()},
            DtypeError,
            "error_signal",
            r"floating-point, got torch\.int64",
        ),
        ({"losses": GIVEN[:2]}, ShapeError, "losses", r"\(3,\), one an utterance, got \(2,\)"),
        ({"losses": [0.0]}, ShapeError, "losses", "got list"),
        ({"losses": torch.tensor([0.0, torch.nan, 0.0])}, ArgumentError, "losses", r"losses\[1\] is NaN"),
        ({"lengths": torch.tensor([5, 0, 2])}, ShapeError, "lengths", r"lengths\[0\] = 5 must lie in 0 … 4"),
        ({"reduction": "mean"}, ArgumentError, "reduction", "got 'mean'"),
    ],
)
def test_bad_input(changes: dict[str, Any], error: type[ArgumentError], argument: str, message: str) -> None:
    arguments: dict[str, Any] = {
        "receiver": random_tensor(0), "losses": GIVEN, "lengths": LENGTHS, "error_signal": random_tensor(1)
    }  # fmt: skip
    with pytest.raises(error, match=message) as caught:
        error_signal_loss(**arguments | changes)
    assert caught.value.argument == argument


def test_a_signal_with_nan_names_the_frame() -> None:
    signal = random_tensor(1)
    signal[2, 1, 3] = torch.nan
    with pytest.raises(
        NonFiniteScoresError, match=r"error_signal of utterance 2 hold NaN .* at frame 1"
    ) as caught:
        error_signal_loss(random_tensor(0), GIVEN, LENGTHS, error_signal=signal)
    assert (caught.value.utterance, caught.value.frame) == (2, 1)
