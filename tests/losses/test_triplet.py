"""The contrastive hinge over pairs, pair by pair."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.errors import ArgumentError, DtypeError, NonFiniteScoresError, ShapeError
from seqtrain.losses.triplet import TripletLoss, triplet, triplet_loss
from tests.fsa.strategies import quick
from tests.losses.frame_examples import dtypes, seeds

ANCHOR, SAME, DIFFERENT = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([[1, 1, 0], [0, 0, 2], [3, 3, 1], [0, 0, 3]])


def by_pairs(embeddings: torch.Tensor, labels: list[int], margin: float) -> torch.Tensor:
    """The definition for embeddings that aren't short."""
    total = torch.zeros((), dtype=torch.float64)
    for one, label in zip(embeddings, labels, strict=True):
        for two, other in zip(embeddings, labels, strict=True):
            distance = 1 - (one * two).sum() / ((one * one).sum() * (two * two).sum()).sqrt()
            hinge = margin - distance
            total = total + 0.5 * (distance if label == other else hinge if hinge > 0 else 0.0 * hinge)
    return total


@quick
@given(seed=seeds, dtype=dtypes, rows=hs.integers(0, 6), margin=hs.sampled_from([0.3, 1.0, 1.5]))
def test_formula(seed: int, dtype: torch.dtype, rows: int, margin: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(rows, 3, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(-1, 3, (rows,), generator=generator)
    loss = triplet(embeddings, labels, margin=margin)
    exact = embeddings.detach().double().requires_grad_()
    expected = by_pairs(exact, labels.tolist(), margin)
    wide = torch.promote_types(dtype, torch.float32)
    assert (loss.dtype, loss.shape) == (wide, ())
    close = 2e-5 if wide == torch.float32 else 1e-9
    torch.testing.assert_close(loss.double(), expected, rtol=close, atol=close)
    once, twice = (torch.autograd.grad(k * loss, embeddings, retain_graph=True)[0] for k in (1.0, 2.0))
    rounding = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float32: 1e-4, torch.float64: 1e-8}[dtype]
    if rows:
        (wanted,) = torch.autograd.grad(expected, exact)
        torch.testing.assert_close(once.double(), wanted, rtol=rounding, atol=rounding)
    assert once.dtype == dtype
    torch.testing.assert_close(twice, 2.0 * once, rtol=0, atol=1e-6 if dtype == torch.float16 else 0)


def test_gradients() -> None:
    embeddings = ANCHOR.double().requires_grad_()

    def function(embeddings: torch.Tensor) -> torch.Tensor:
        return triplet(embeddings, torch.tensor([0, 1, 0, 2]), margin=1.2)

    assert torch.autograd.gradcheck(function, embeddings)
    assert torch.autograd.gradgradcheck(function, embeddings)


def test_label_zero_is_a_label_like_any_other() -> None:
    embeddings = torch.cat((ANCHOR, SAME))
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    assert torch.equal(triplet(embeddings, labels, margin=0.7), triplet(embeddings, labels + 5, margin=0.7))


def test_large_labels_are_compared_exactly() -> None:
    labels = torch.tensor([2**31, 2**31 + 1, 2**62, 2**62 + 1])
    expected = triplet(ANCHOR, torch.arange(4), margin=0.7)
    assert torch.equal(triplet(ANCHOR, labels, margin=0.7), expected)


def test_lengths_of_embeddings_do_not_matter() -> None:
    labels = torch.tensor([0, 1, 0, 2])
    scaled = ANCHOR * torch.tensor([[1e-3], [1.0], [50.0], [1e3]])
    torch.testing.assert_close(triplet(scaled, labels, margin=0.7), triplet(ANCHOR, labels, margin=0.7))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_an_embedding_of_zero(dtype: torch.dtype) -> None:
    """It is as far from any other as one at a right angle, and is divided by a length of √1e-15."""
    embeddings = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=dtype, requires_grad=True)
    loss = triplet(embeddings, torch.tensor([4, 4]), margin=1.0)
    assert loss.item() == pytest.approx(0.5 + 2 * 0.5)
    (gradient,) = torch.autograd.grad(1e-5 * loss, embeddings)
    assert gradient.isfinite().all()
    assert gradient[0].tolist() == pytest.approx([-1e-5 / 1e-15**0.5, 0.0], rel=1e-3)


@quick
@given(seed=seeds, dtype=dtypes, batch=hs.integers(0, 4), reduction=hs.sampled_from(["sum", "pairs"]))
def test_of_triplets(seed: int, dtype: torch.dtype, batch: int, reduction: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchor, same, different = leaves = [
        torch.randn(batch, 3, generator=generator).to(dtype).requires_grad_() for _ in range(3)
    ]
    labels = torch.randint(0, 3, (batch, 3), generator=generator).int()
    loss = triplet_loss(anchor, same, different, labels, margin=0.8, reduction=reduction)
    rows = [row for leaf in leaves for row in leaf]
    whole = torch.stack(rows) if rows else torch.zeros(0, 3, dtype=dtype)
    flat = torch.tensor([int(labels[b, k]) for k in range(3) for b in range(batch)], dtype=torch.int64)
    expected = triplet(whole, flat, margin=0.8) / (1 if reduction == "sum" else 9 * max(batch, 1))
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, leaves)
    assert all(one.dtype == dtype for one in gradients)
    if batch:
        for one, other in zip(gradients, torch.autograd.grad(expected, leaves), strict=True):
            torch.testing.assert_close(one, other)


def test_module() -> None:
    expected = triplet_loss(ANCHOR, SAME, DIFFERENT, LABELS, margin=0.6, reduction="pairs")
    module = TripletLoss(margin=0.6)
    assert torch.equal(module(ANCHOR, SAME, DIFFERENT, LABELS), expected)
    assert repr(module) == "TripletLoss(margin=0.6, reduction='pairs')"
    total = TripletLoss(margin=0.6, reduction="sum")(ANCHOR, SAME, DIFFERENT, LABELS)
    assert torch.equal(total, triplet_loss(ANCHOR, SAME, DIFFERENT, LABELS, margin=0.6))
    torch.testing.assert_close(total / 36, expected)
    assert module.state_dict() == {}
    for options in ({"margin": 1.0, "reduction": "batch"}, {"margin": torch.inf}):
        with pytest.raises(ArgumentError) as caught:
            TripletLoss(**options)
        assert caught.value.argument in options


HOLED = SAME.clone()
HOLED[2, 1] = torch.nan


@pytest.mark.parametrize(
    ("changes", "error", "argument", "message"),
    [
        ({"same": HOLED}, NonFiniteScoresError, "same", "same hold NaN or an infinity in row 2"),
        ({"same": SAME[:3]}, ShapeError, "same", r"must have the anchor's shape \(4, 5\), got \(3, 5\)"),
        ({"different": DIFFERENT[:, :4]}, ShapeError, "different", r"got \(4, 4\)"),
        ({"anchor": ANCHOR[0]}, ShapeError, "anchor", r"2 dimensions, rows and .*, got shape \(5,\)"),
        ({"anchor": ANCHOR[:, :0]}, ShapeError, "anchor", r"got shape \(4, 0\)"),
        ({"anchor": ANCHOR.int()}, DtypeError, "anchor", r"got torch\.int32"),
        ({"anchor": None}, DtypeError, "anchor", r"must be a torch\.Tensor, got NoneType"),
        ({"labels": LABELS.float()}, DtypeError, "labels", r"an integer tensor, got torch\.float32"),
        ({"labels": LABELS[:, :2]}, ShapeError, "labels", r"shape \(4, 3\), got \(4, 2\)"),
        ({"margin": torch.nan}, ArgumentError, "margin", "margin must be finite, got nan"),
        ({"reduction": "batch"}, ArgumentError, "reduction", "one of 'sum', 'pairs', got 'batch'"),
    ],
)
def test_arguments(changes: dict[str, Any], error: type[ArgumentError], argument: str, message: str) -> None:
    arguments = {
        "anchor": ANCHOR, "same": SAME, "different": DIFFERENT, "labels": LABELS, "margin": 1.0
    }  # fmt: skip
    with pytest.raises(error, match=message) as caught:
        triplet_loss(**arguments | changes)
    assert caught.value.argument == argument


def test_arguments_of_rows() -> None:
    with pytest.raises(NonFiniteScoresError, match="embeddings hold NaN or an infinity in row 2") as caught:
        triplet(HOLED, torch.arange(4), margin=1.0)
    assert (caught.value.argument, caught.value.utterance, caught.value.frame) == ("embeddings", 2, 0)
    with pytest.raises(ShapeError, match=r"labels must have shape \(4\), got \(3,\)"):
        triplet(ANCHOR, torch.arange(3), margin=1.0)
    with pytest.raises(ArgumentError, match="margin must be finite"):
        triplet(ANCHOR, torch.arange(4), margin=-torch.inf)
