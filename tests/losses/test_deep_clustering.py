"""Deep clustering, against affinities of all pairs of bins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.errors import ArgumentError, DtypeError, NonFiniteScoresError, ShapeError
from seqtrain.losses.deep_clustering import DeepClusteringLoss, deep_clustering
from seqtrain.scores import Packed
from tests.fsa.strategies import quick
from tests.losses.frame_examples import arranged, dtypes, layouts, seeds
from tests.ops.examples import offsets_of

EMBEDDINGS, TARGETS, LENGTHS = torch.randn(2, 3, 6), torch.rand(2, 3, 4), torch.tensor([3, 2])
OPTIONS: dict[str, Any] = {"embedding_dimension": 3, "num_sources": 2}


def affinities(
    embeddings: torch.Tensor, targets: torch.Tensor, embedding_dimension: int, num_sources: int
) -> torch.Tensor:
    """||V Vᵀ - Y Yᵀ||² of one utterance's frames, bin by bin."""
    v = torch.cat([torch.stack(row.split(embedding_dimension)) for row in embeddings])
    y = torch.cat([torch.stack(row.split(num_sources)) for row in targets])
    return ((v @ v.t() - y @ y.t()) ** 2).sum()


@quick
@given(
    seed=seeds, dtype=dtypes, layout=layouts, bins=hs.integers(1, 3), embedding_dimension=hs.integers(1, 4),
    num_sources=hs.integers(1, 3),
)  # fmt: skip
def test_formula(
    seed: int, dtype: torch.dtype, layout: str, bins: int, embedding_dimension: int, num_sources: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(6, (3,), generator=generator)
    embeddings = torch.randn(3, 5, bins * embedding_dimension, generator=generator).to(dtype)
    targets = torch.rand(3, 5, bins * num_sources, generator=generator).to(dtype)
    outside = torch.arange(5) >= lengths[:, None]
    embeddings[outside], targets[outside] = torch.nan, torch.nan
    options: dict[str, Any] = {"embedding_dimension": embedding_dimension, "num_sources": num_sources}

    leaves = [embeddings.clone().requires_grad_(), targets.clone().requires_grad_()]
    arguments = arranged(leaves[0], leaves[1], lengths, layout)
    losses = deep_clustering(*arguments, **options)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = torch.stack(
        [
            affinities(exact[0][b, :length], exact[1][b, :length], **options)
            if length
            else torch.zeros((), dtype=torch.float64)
            for b, length in enumerate(lengths.tolist())
        ]
    )
    wide = torch.promote_types(dtype, torch.float32)
    rtol, atol = (1e-4, 1e-3) if wide == torch.float32 else (1e-9, 1e-9)
    assert losses.dtype == wide
    torch.testing.assert_close(losses.double(), expected, rtol=rtol, atol=atol)
    for reduction, divisor in (("sum", 1), ("batch", 3), ("frames", max(int(lengths.sum()), 1))):
        reduced = deep_clustering(*arguments, **options, reduction=reduction)
        torch.testing.assert_close(reduced.double(), expected.sum() / divisor, rtol=rtol, atol=atol)

    if not bool(lengths.any()):
        assert not losses.any()
        return
    weights = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    found = torch.autograd.grad((weights.to(wide) * losses).sum(), leaves, retain_graph=True)
    wanted = torch.autograd.grad((weights * expected).sum(), exact)
    rounding = {torch.float16: 1e-3, torch.bfloat16: 1e-2, torch.float32: 1e-4, torch.float64: 1e-9}[dtype]
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, rtol=rounding, atol=rounding)
        assert not one[outside].any()
    once, twice = (torch.autograd.grad((k * losses).sum(), leaves, retain_graph=True)[0] for k in (1.0, 2.0))
    torch.testing.assert_close(twice, 2.0 * once, rtol=0, atol=1e-6 if dtype == torch.float16 else 0)


def test_gradients() -> None:
    embeddings, targets = (x.double().requires_grad_() for x in (EMBEDDINGS, TARGETS))

    def function(embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return deep_clustering(embeddings, targets, LENGTHS, embedding_dimension=3, num_sources=2)

    assert torch.autograd.gradcheck(function, (embeddings, targets))
    assert torch.autograd.gradgradcheck(function, (embeddings, targets))


def test_embeddings_that_are_the_targets() -> None:
    targets = torch.eye(2)[torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0]])].reshape(1, 2, 8)
    loss = deep_clustering(targets, targets, embedding_dimension=2, num_sources=2)
    assert loss.tolist() == [0.0]


@pytest.mark.parametrize("reduction", ["none", "sum", "batch", "frames"])
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0), (2, 3)])
def test_nothing(shape: tuple[int, int], reduction: str) -> None:
    lengths = torch.zeros(shape[0], dtype=torch.int64)
    embeddings = torch.full((*shape, 6), torch.nan, requires_grad=True)
    packed = Packed(torch.zeros(0, 6, requires_grad=True), offsets_of(lengths))
    for scores, targets in ((embeddings, torch.zeros(*shape, 4)), (packed, torch.zeros(0, 4))):
        losses = deep_clustering(scores, targets, lengths, **OPTIONS, reduction=reduction)
        assert losses.shape == (shape[:1] if reduction == "none" else ())
        assert not losses.any()
        leaf = scores.values if isinstance(scores, Packed) else scores
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        assert not gradient.any()


@pytest.mark.parametrize("reduction", ["none", "sum", "batch", "frames"])
def test_module(reduction: str) -> None:
    module = DeepClusteringLoss(embedding_dimension=3, num_sources=2, reduction=reduction)
    expected = deep_clustering(EMBEDDINGS, TARGETS, LENGTHS, **OPTIONS, reduction=reduction)
    assert torch.equal(module(EMBEDDINGS, TARGETS, LENGTHS), expected)
    assert repr(module) == (
        f"DeepClusteringLoss(embedding_dimension=3, num_sources=2, reduction={reduction!r})"
    )
    assert DeepClusteringLoss(embedding_dimension=3, num_sources=2).reduction == "batch"
    with pytest.raises(ArgumentError, match="num_sources must be an int"):
        DeepClusteringLoss(embedding_dimension=3, num_sources=0)


HOLED, HOLED_TARGETS = EMBEDDINGS.clone(), TARGETS.clone()
HOLED[1, 1, 5], HOLED_TARGETS[0, 2, 0] = torch.nan, torch.inf


@pytest.mark.parametrize(
    ("changes", "error", "argument", "message"),
    [
        (
            {"embeddings": HOLED},
            NonFiniteScoresError,
            "embeddings",
            "embeddings of utterance 1 .* at frame 1",
        ),
        ({"targets": HOLED_TARGETS}, NonFiniteScoresError, "targets", "targets of utterance 0 .* at frame 2"),
        ({"targets": TARGETS.int()}, DtypeError, "targets", r"not torch\.int32"),
        ({"targets": None}, DtypeError, "targets", r"must be a torch\.Tensor, got NoneType"),
        ({"targets": TARGETS[:, :2]}, ShapeError, "targets", r"shape \(2, 3, any\).*got \(2, 2, 4\)"),
        ({"embeddings": EMBEDDINGS[0]}, ShapeError, "embeddings", r"got \(3, 6\)"),
        ({"num_sources": 3}, ShapeError, "targets", "4 values a frame, .* a multiple of num_sources = 3"),
        ({"targets": TARGETS[..., :0]}, ShapeError, "targets", "0 values a frame"),
        ({"num_sources": 1}, ShapeError, "embeddings", "6 features a frame, .* 4 bins need 4 · .* = 12"),
        ({"embedding_dimension": 2}, ShapeError, "embeddings", "2 bins need 2 · embedding_dimension = 4"),
        ({"embedding_dimension": 0}, ArgumentError, "embedding_dimension", "an int of at least 1, got 0"),
        ({"num_sources": 2.0}, ArgumentError, "num_sources", r"an int of at least 1, got 2\.0"),
        (
            {"reduction": "per_frame"},
            ArgumentError,
            "reduction",
            "one of 'none', 'sum', 'batch', 'frames', got",
        ),
        ({"lengths": torch.tensor([4, 1])}, ShapeError, "lengths", r"lengths\[0\] = 4 must lie in 0 … 3"),
    ],
)
def test_arguments(changes: dict[str, Any], error: type[ArgumentError], argument: str, message: str) -> None:
    arguments: dict[str, Any] = {
        "embeddings": EMBEDDINGS,
        "targets": TARGETS,
        "lengths": LENGTHS,
        **OPTIONS,
    } | changes
    with pytest.raises(error, match=message) as caught:
        deep_clustering(**arguments)
    assert caught.value.argument == argument
