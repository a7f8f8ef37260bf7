"""Random batches for criteria that are sums over frames, and what all of these must fulfil."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import strategies as hs

from seqtrain.errors import ArgumentError, DtypeError, NonFiniteScoresError, ShapeError
from seqtrain.losses.reduction import FRAME_REDUCTIONS
from seqtrain.scores import Packed, Scores
from tests.ops.examples import DTYPES, offsets_of, packed_rows

Criterion = Callable[..., torch.Tensor]
"""Called with (scores, targets, lengths, reduction=…)."""

Formula = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""The definition: float64 scores (n, F) and targets (n, …) of one utterance's frames → (n,) losses."""

seeds = hs.integers(0, 2**32)
dtypes = hs.sampled_from(DTYPES)
layouts = hs.sampled_from(["padded", "packed"])

_TOLERANCES = {
    torch.float16: (2e-3, 1e-4),
    torch.bfloat16: (1.6e-2, 1e-4),
    torch.float32: (2e-5, 2e-5),
    torch.float64: (1e-9, 1e-9),
}
"""Relative and absolute ones."""


class Example(NamedTuple):
    """`scores` (B, T, F), NaN past the ends; `targets` (B, T) int or (B, T, F) float, as bad there; `lengths` (B,)."""

    scores: torch.Tensor
    targets: torch.Tensor
    lengths: torch.Tensor


def normal(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Any numbers."""
    return 2.0 * torch.randn(shape, generator=generator, dtype=torch.float64)


def uniform(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Numbers in [0, 1), a quarter of them 0 or 1."""
    values = torch.rand(shape, generator=generator, dtype=torch.float64)
    return torch.where(values < 0.25, (values < 0.125).double(), values)


def positive(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Numbers above 0."""
    return 0.05 + torch.rand(shape, generator=generator, dtype=torch.float64)


def distributions(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Probabilities of the last axis."""
    return normal(shape, generator).softmax(dim=-1)


def labels(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """(B, T) labels of a shape (B, T, F)."""
    return torch.randint(shape[-1], shape[:-1], generator=generator)


Values = Callable[[tuple[int, ...], torch.Generator], torch.Tensor]


def random_example(
    seed: int, *, scores: Values = normal, targets: Values = labels, dtype: torch.dtype = torch.float64
) -> Example:
    """A few utterances of 0 … 5 frames, the longest as long as the batch or shorter."""
    generator = torch.Generator().manual_seed(seed)
    batch, limit, size = (
        int(torch.randint(low, high, (), generator=generator)) for low, high in ((1, 5), (1, 6), (1, 7))
    )
    lengths = torch.randint(limit + 1, (batch,), generator=generator)
    shape = (batch, limit, size)
    values, wanted = scores(shape, generator).to(dtype), targets(shape, generator)
    if wanted.is_floating_point():
        wanted = wanted.to(dtype)
    outside = torch.arange(limit) >= lengths[:, None]
    values[outside] = torch.nan
    wanted[outside] = torch.nan if wanted.is_floating_point() else -100
    return Example(values, wanted, lengths)


def arranged(
    scores: torch.Tensor, targets: torch.Tensor, lengths: torch.Tensor, layout: str
) -> tuple[Scores, torch.Tensor, torch.Tensor | None]:
    """The arguments of a criterion: padded, or packed; gradients reach the padded tensors."""
    if layout == "padded":
        return scores, targets, lengths
    return Packed(packed_rows(scores, lengths), offsets_of(lengths)), packed_rows(targets, lengths), None


def check_formula(criterion: Criterion, formula: Formula, example: Example, *, layout: str) -> None:
    """Values and gradients are the formula's, for scores and dense targets; each reduction is what its name says."""
    scores = example.scores.clone().requires_grad_()
    dense = example.targets.is_floating_point()
    targets = example.targets.clone().requires_grad_(dense)
    leaves = [scores, targets] if dense else [scores]
    arguments = arranged(scores, targets, example.lengths, layout)

    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    exact_targets = exact[1] if dense else example.targets
    frames = [
        formula(exact[0][b, :length], exact_targets[b, :length])
        for b, length in enumerate(example.lengths.tolist())
    ]
    expected = torch.stack([losses.sum() for losses in frames])

    wide = torch.promote_types(scores.dtype, torch.float32)
    losses = criterion(*arguments, reduction="none")
    assert losses.dtype == wide
    _close(losses, expected, wide)
    per_frame = criterion(*arguments, reduction="per_frame")
    for b, length in enumerate(example.lengths.tolist()):
        if layout == "padded":
            _close(per_frame[b, :length], frames[b], wide)
            assert not per_frame[b, length:].any()
    if layout == "packed":
        _close(per_frame, torch.cat(frames), wide)
    for reduction, divisor in (
        ("sum", 1), ("batch", len(frames)), ("frames", max(int(example.lengths.sum()), 1))
    ):  # fmt: skip
        _close(criterion(*arguments, reduction=reduction), expected.sum() / divisor, wide)

    weights = torch.linspace(-1.0, 2.0, len(frames), dtype=torch.float64)
    found = torch.autograd.grad((weights.to(wide) * losses).sum(), leaves, retain_graph=True)
    wanted = torch.autograd.grad((weights * expected).sum(), exact)
    outside = torch.arange(scores.shape[1]) >= example.lengths[:, None]
    for one, other, leaf in zip(found, wanted, leaves, strict=True):
        assert one.dtype == leaf.dtype
        _close(one, other, leaf.dtype)
        assert not one[outside].any()
    once = torch.autograd.grad(losses.sum(), leaves, retain_graph=True)
    twice = torch.autograd.grad((2.0 * losses).sum(), leaves)
    for one, two in zip(once, twice, strict=True):
        # What is subnormal in half precision is rounded at another place once it's doubled.
        torch.testing.assert_close(two, 2.0 * one, rtol=0, atol=1e-6 if two.dtype == torch.float16 else 0)


def _close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    rtol, atol = _TOLERANCES[dtype]
    torch.testing.assert_close(found.detach().double(), expected.detach(), rtol=rtol, atol=atol)


def check_gradients(criterion: Criterion, example: Example) -> None:
    """Finite differences, of first and second derivatives, of the frames that count."""
    leaves = [example.scores, example.targets] if example.targets.is_floating_point() else [example.scores]
    leaves = [packed_rows(leaf, example.lengths).requires_grad_() for leaf in leaves]
    offsets = offsets_of(example.lengths)

    def function(scores: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        wanted = packed_rows(example.targets, example.lengths) if targets is None else targets
        return criterion(Packed(scores, offsets), wanted, None, reduction="none")

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def check_nothing(criterion: Criterion, *, targets: Values = labels) -> None:
    """Batches without utterances, without frames, and with utterances of length 0 alone."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((0, 3, 4), (2, 0, 4), (0, 0, 4), (2, 3, 4)):
        for layout in ("padded", "packed"):
            scores = torch.full(shape, torch.nan, requires_grad=True)
            lengths = torch.zeros(shape[0], dtype=torch.int64)
            for reduction in FRAME_REDUCTIONS:
                arguments = arranged(scores, targets(shape, generator), lengths, layout)
                losses = criterion(*arguments, reduction=reduction)
                kept = {
                    "none": shape[:1], "per_frame": shape[:2] if layout == "padded" else (0,)
                }.get(reduction, ())  # fmt: skip
                assert losses.shape == kept
                assert not losses.any()
                if losses.requires_grad:
                    (gradient,) = torch.autograd.grad(losses.sum(), scores)
                    assert not gradient.any()


def check_module(module: torch.nn.Module, criterion: Criterion, example: Example, text: str) -> None:
    """The module is the function with its options; it has no state."""
    assert torch.equal(module(*example), criterion(*example, reduction=module.reduction))
    assert repr(module) == text
    assert not list(module.parameters())
    assert module.state_dict() == {}
    with pytest.raises(ArgumentError, match=r"must be one of 'per_frame', 'none', .*, got 'mean'") as caught:
        type(module)(reduction="mean")
    assert caught.value.argument == "reduction"


class Bad(NamedTuple):
    """Arguments that differ from a good example, and what is said about them."""

    changes: dict[str, Any]
    error: type[ArgumentError]
    argument: str
    message: str


def bad_arguments(name: str, example: Example, *, dense: bool) -> Iterator[Bad]:
    """What every criterion refuses; `name` is that of the scores, of shape (2, 3, 4), lengths (3, 2)."""
    scores, targets, _ = example
    holed = scores.clone()
    holed[1, 1, 2] = torch.nan
    yield Bad(
        {"scores": holed}, NonFiniteScoresError, name, rf"{name} of utterance 1 hold NaN or .* at frame 1"
    )
    holed = scores.clone()
    holed[0, 2, 0] = torch.inf
    yield Bad({"scores": holed}, NonFiniteScoresError, name, rf"{name} of utterance 0 hold NaN or .*frame 2")
    yield Bad({"scores": scores[0]}, ShapeError, name, rf"{name} must have shape \(B, T, F\).*got \(3, 4\)")
    yield Bad({"scores": scores.int()}, DtypeError, name, rf"{name} must be float16.*got torch\.int32")
    yield Bad({"lengths": torch.tensor([3, 4])}, ShapeError, "lengths", r"lengths\[1\] = 4 must lie in 0 … 3")
    yield Bad({"lengths": torch.tensor([3.0, 2.0])}, DtypeError, "lengths", "an integer tensor, got")
    yield Bad({"lengths": torch.tensor([3])}, ShapeError, "lengths", r"shape \(2\), got \(1,\)")
    yield Bad({"reduction": "targets"}, ArgumentError, "reduction", "got 'targets'")
    yield Bad(
        {"targets": targets[:, :2]}, ShapeError, "targets", r"targets must have shape \(2, 3.*got \(2, 2"
    )
    yield Bad({"targets": None}, DtypeError, "targets", r"targets must be a torch\.Tensor, got NoneType")
    if dense:
        holed = targets.clone()
        holed[1, 0, 3] = torch.nan
        yield Bad({"targets": holed}, NonFiniteScoresError, "targets", "targets of utterance 1 .* at frame 0")
        yield Bad({"targets": targets[..., :3]}, ShapeError, "targets", r"\(2, 3, 4\).*got \(2, 3, 3\)")


def bad_name(bad: Bad) -> str:
    """For the names of parametrized tests."""
    return f"{bad.argument}-{bad.error.__name__}"


def check_refused(criterion: Criterion, example: Example, bad: Bad) -> None:
    """The bad argument is refused with its message and fields."""
    arguments = example._asdict() | {"reduction": "none"} | bad.changes
    scores, targets, lengths = (arguments.pop(key) for key in ("scores", "targets", "lengths"))
    with pytest.raises(bad.error, match=bad.message) as caught:
        criterion(scores, targets, lengths, **arguments)
    assert caught.value.argument == bad.argument
