"""Half precision is read exactly and written rounded to nearest; what lies between is single precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain.errors import NonFiniteScoresError
from seqtrain.fsa import Fsa
from tests.fsa.strategies import quick
from tests.ops.examples import random_batch, random_ctc_batch
from tests.ops.gradient import gradient

HALVES = (torch.float16, torch.bfloat16)
ONE_LABEL = Fsa([[0, 0, 0]])

Function = Callable[[torch.Tensor], torch.Tensor]


def every_number(dtype: torch.dtype) -> torch.Tensor:
    """All finite numbers of a 16-bit dtype that single precision takes for no larger than 2^14."""
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    return numbers[numbers.float().abs() <= 2.0**14]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_number_is_read_exactly(dtype: torch.dtype) -> None:
    """Subnormal ones of float16 are none in float32; those of bfloat16 are, and as scores are zero."""
    numbers = every_number(dtype)
    lengths = torch.ones(len(numbers), dtype=torch.int64)
    path = st.best_path(numbers[:, None, None], lengths, ONE_LABEL)
    exact = numbers.float()
    flushed = torch.where(exact.abs() < torch.finfo(torch.float32).smallest_normal, 0.0, exact)
    assert torch.equal(path.score, flushed)
    value = st.full_sum(numbers[:, None, None], lengths, ONE_LABEL)
    torch.testing.assert_close(value, flushed, rtol=1.2e-7, atol=1e-7)


def functions(seed: int, dtype: torch.dtype) -> list[tuple[torch.Tensor, Function]]:
    """Scores in a 16-bit dtype, and functions that take them in any."""
    scores, lengths, graphs = random_batch(seed, dtype=dtype, scale=8.0, labels=19)
    other, *rest = random_ctc_batch(seed, dtype=dtype, scale=8.0, labels=19)
    return [
        (scores, lambda x: st.full_sum(x, lengths, graphs, on_infeasible="mask")),
        (other, lambda x: st.ctc_loss(x, *rest)),
        (other, lambda x: st.ctc_loss(x, *rest, normalize=True)),
    ]


@quick
@given(
    seed=hs.integers(0, 2**32),
    dtype=hs.sampled_from(HALVES),
    factor=hs.sampled_from([1.0, -0.37, 1e-4, 3e-8, 7e4, 1e38]),
)
def test_gradients_are_those_of_single_precision_rounded_once(
    seed: int, dtype: torch.dtype, factor: float
) -> None:
    """Subnormal and infinite results included."""
    for scores, function in functions(seed, dtype):
        half, single = scores.clone().requires_grad_(), scores.float().requires_grad_()
        weight = torch.full((len(scores),), factor)
        found, expected = gradient(function(half), half, weight), gradient(function(single), single, weight)
        assert torch.equal(found, expected.to(dtype))


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_no_number_is_found_in_any_lane(value: float, dtype: torch.dtype) -> None:
    labels = 150
    scores = torch.zeros(labels, 2, labels, dtype=dtype)
    scores[torch.arange(labels), 1, torch.arange(labels)] = value
    one, targets = torch.tensor([1]), torch.tensor([[1]])
    for label in range(labels):
        with pytest.raises(NonFiniteScoresError, match=r"of utterance 0 .* at frame 1"):
            st.ctc_loss(scores[label : label + 1], targets, one + 1, one, normalize=True)


def test_what_is_no_number_is_found_in_any_target() -> None:
    labels = 70
    targets = torch.arange(1, labels)[None]
    for label in range(labels):
        scores = torch.zeros(1, labels, labels)
        scores[0, 3, label] = torch.nan
        with pytest.raises(NonFiniteScoresError, match="at frame 3"):
            st.ctc_loss(scores, targets, torch.tensor([labels]), torch.tensor([labels - 1]))
        with pytest.raises(NonFiniteScoresError, match="at frame 3"):
            st.full_sum(scores, torch.tensor([labels]), st.fsa.ctc(targets, [labels - 1]))
