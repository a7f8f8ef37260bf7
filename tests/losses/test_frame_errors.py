"""Frames that are classified wrong."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.errors import LabelError
from seqtrain.losses.frame_errors import frame_errors
from tests.fsa.strategies import quick
from tests.losses.frame_examples import (
    Bad,
    Example,
    Values,
    arranged,
    bad_arguments,
    bad_name,
    check_nothing,
    check_refused,
    dtypes,
    labels,
    layouts,
    normal,
    random_example,
    seeds,
)

EXAMPLE = Example(torch.randn(2, 3, 4), torch.tensor([[0, 1, 2], [3, 0, 9]]), torch.tensor([3, 2]))


def best(row: list[float]) -> int:
    """The first of the largest."""
    return row.index(max(row))


@quick
@given(seed=seeds, dtype=dtypes, layout=layouts, targets=hs.sampled_from(["labels", "dense"]))
def test_counts(seed: int, dtype: torch.dtype, layout: str, targets: str) -> None:
    example = random_example(seed, targets={"labels": labels, "dense": normal}[targets], dtype=dtype)
    scores = example.scores.float().round().to(dtype).requires_grad_()
    wanted = example.targets.float().round().to(dtype) if targets == "dense" else example.targets
    expected = [
        [
            float(best(row) != (best(target) if targets == "dense" else target))
            for row, target in zip(scores[b, :length].tolist(), wanted[b, :length].tolist(), strict=True)
        ]
        for b, length in enumerate(example.lengths.tolist())
    ]
    arguments = arranged(scores, wanted, example.lengths, layout)
    counts = frame_errors(*arguments)
    assert counts.tolist() == [sum(errors) for errors in expected]
    assert counts.dtype == torch.promote_types(dtype, torch.float32)
    assert not counts.requires_grad
    per_frame = frame_errors(*arguments, reduction="per_frame")
    if layout == "packed":
        assert per_frame.tolist() == [error for errors in expected for error in errors]
    else:
        limit = scores.shape[1]
        assert per_frame.tolist() == [errors + [0.0] * (limit - len(errors)) for errors in expected]
    total = sum(map(sum, expected))
    assert frame_errors(*arguments, reduction="sum").item() == total
    assert frame_errors(*arguments, reduction="batch").item() == pytest.approx(total / len(expected))
    frames = max(int(example.lengths.sum()), 1)
    assert frame_errors(*arguments, reduction="frames").item() == pytest.approx(total / frames)


def test_the_lowest_of_equal_labels_is_the_best() -> None:
    scores = torch.tensor([[[1.0, 1.0, 0.0], [-torch.inf, 2.0, 2.0], [-torch.inf] * 3]])
    assert frame_errors(scores, torch.tensor([[0, 1, 0]])).item() == 0.0
    assert frame_errors(scores, torch.tensor([[1, 2, 1]])).item() == 3.0
    assert (
        frame_errors(scores, torch.tensor([[[5.0, 5.0, 0.0], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]])).item()
        == 0.0
    )


@pytest.mark.parametrize("targets", [labels, normal])
def test_nothing(targets: Values) -> None:
    check_nothing(frame_errors, targets=targets)


DENSE = torch.rand(2, 3, 4)


@pytest.mark.parametrize(
    "bad",
    [
        *bad_arguments("scores", EXAMPLE, dense=False),
        *(
            bad._replace(changes={"targets": DENSE} | bad.changes)
            for bad in bad_arguments("scores", EXAMPLE._replace(targets=DENSE), dense=True)
        ),
        Bad({"targets": torch.full((2, 3), 4)}, LabelError, "targets", "of utterance 0 hold 4 at frame 0"),
    ],
    ids=bad_name,
)
def test_arguments(bad: Bad) -> None:
    check_refused(frame_errors, EXAMPLE, bad)
