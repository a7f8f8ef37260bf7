"""Packed and padded scores, and what is refused before any value is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import seqtrain as st
from seqtrain.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from seqtrain.fsa import Fsa
from seqtrain.scores import Packed, host_integers, split_scores

ANY = Fsa([[0, 0, 0]])

FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "full_sum": lambda scores, lengths: st.full_sum(scores, lengths, ANY),
    "compact_posteriors": lambda scores, lengths: st.compact_posteriors(scores, lengths, ANY),
    "posteriors": lambda scores, lengths: st.posteriors(scores, lengths, ANY),
    "best_path": lambda scores, lengths: st.best_path(scores, lengths, ANY),
    "ctc_loss": lambda scores, lengths: st.ctc_loss(
        scores, torch.zeros(2, 0, dtype=torch.int64), lengths, torch.zeros(2, dtype=torch.int64)
    ),
}


@pytest.fixture(params=FUNCTIONS)
def function(request: pytest.FixtureRequest) -> Callable[[Any, Any], Any]:
    return FUNCTIONS[request.param]


LENGTHS = torch.tensor([3, 2])


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        (torch.zeros(2, 3), ShapeError, r"must have 3 dimensions \(B, T, V\), got shape \(2, 3\)"),
        (torch.zeros(2, 3, 4, 1), ShapeError, r"got shape \(2, 3, 4, 1\)"),
        (torch.zeros(2, 3, 0), ShapeError, r"at least one label \(V\), got shape \(2, 3, 0\)"),
        (torch.zeros(2, 3, 4, dtype=torch.int64), DtypeError, r"float64, got torch\.int64"),
        (torch.zeros(2, 3, 4, dtype=torch.complex64), DtypeError, r"got torch\.complex64"),
        (torch.zeros(2, 3, 4, dtype=torch.bool), DtypeError, r"got torch\.bool"),
        (torch.zeros(2, 3, 4, device="meta"), DeviceError, r"scores are on meta.*pass scores\.cpu\(\)"),
        ([[[0.0]]], DtypeError, r"must be a torch\.Tensor, got list"),
        (None, DtypeError, r"must be a torch\.Tensor, got NoneType"),
    ],
)
def test_scores(
    function: Callable[[Any, Any], Any], scores: Any, error: type[ArgumentError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        function(scores, LENGTHS)
    assert caught.value.argument == "scores"


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        (torch.tensor([3.0, 2.0]), DtypeError, r"must be an integer tensor, got torch\.float32"),
        (torch.tensor([True, False]), DtypeError, r"got torch\.bool"),
        (torch.tensor([3]), ShapeError, r"must have shape \(2\), got \(1,\)"),
        (torch.tensor([[3, 2]]), ShapeError, r"must have shape \(2\), got \(1, 2\)"),
        (torch.tensor(3), ShapeError, r"must have shape \(2\), got \(\)"),
        ([3, 2], DtypeError, r"must be a torch\.Tensor, got list"),
        (torch.tensor([3, 4]), ShapeError, r"lengths\[1\] = 4, but scores have 3 frames \(T\)"),
        (LENGTHS.to("meta"), DeviceError, "is on the device meta, which holds no values"),
        (torch.tensor([-1, 2]), ShapeError, r"lengths\[0\] = -1, .* must lie in 0 … T"),
    ],
)
def test_lengths(
    function: Callable[[Any, Any], Any], lengths: Any, error: type[ArgumentError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        function(torch.zeros(2, 3, 4), lengths)
    assert caught.value.argument == "lengths"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_lengths_of_any_integer_dtype(function: Callable[[Any, Any], Any], dtype: torch.dtype) -> None:
    function(torch.zeros(2, 3, 4), LENGTHS.to(dtype))


@pytest.mark.parametrize(
    ("offsets", "lengths", "argument", "message"),
    [
        ([0, 3, 6], [3, 3], "offsets", r"must rise from 0 to 5, the rows of the packed scores; got 0 … 6"),
        ([1, 3, 5], [2, 2], "offsets", r"got 1 … 5"),
        ([0, 6, 5], [6, -1], "offsets", r"must rise from 0 to 5"),
        ([0, 3, 5], [3, 1], "lengths", r"lengths\[1\] = 1, but utterance 1 of the packed scores has 2"),
    ],
)
def test_offsets_that_do_not_fit(
    function: Callable[[Any, Any], Any],
    offsets: list[int],
    lengths: list[int],
    argument: str,
    message: str,
) -> None:
    with pytest.raises(ShapeError, match=message) as caught:
        function(Packed(torch.zeros(5, 4), torch.tensor(offsets)), torch.tensor(lengths))
    assert caught.value.argument == argument


def test_packed_scores_of_a_wrong_kind(function: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(ShapeError, match=r"must have 2 dimensions \(ΣT, V\), got shape \(1, 5, 4\)"):
        function(Packed(torch.zeros(1, 5, 4), torch.tensor([0, 3, 5])), LENGTHS)
    with pytest.raises(DtypeError, match="offsets must be an integer tensor"):
        function(Packed(torch.zeros(5, 4), torch.tensor([0.0, 3.0, 5.0])), LENGTHS)
    with pytest.raises(ShapeError, match=r"offsets must have B \+ 1 entries, got none"):
        function(Packed(torch.zeros(5, 4), torch.zeros(0, dtype=torch.int64)), LENGTHS)
    with pytest.raises(ShapeError, match=r"lengths must have shape \(1\), got \(2,\)"):
        function(Packed(torch.zeros(5, 4), torch.tensor([0, 5])), LENGTHS)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_packed_scores_say_their_lengths(dtype: torch.dtype) -> None:
    packed = Packed(torch.zeros(5, 4), torch.tensor([0, 3, 5], dtype=dtype))
    assert packed.lengths.tolist() == [3, 2]
    values, offsets = split_scores(packed)
    assert values is packed.values
    assert offsets is not None
    assert offsets.dtype == torch.int64
    assert st.full_sum(packed, packed.lengths, ANY).tolist() == [0.0, 0.0]


def test_padded_scores_have_no_offsets() -> None:
    scores = torch.zeros(2, 3, 4)
    assert split_scores(scores) == (scores, None)


def test_a_free_size_is_called_any() -> None:
    with pytest.raises(ShapeError, match=r"targets must have shape \(2, any\), got \(3, 1\)"):
        host_integers(torch.zeros(3, 1, dtype=torch.int64), "targets", (2, None))


@pytest.mark.parametrize("policy", ["ignore", "", "RAISE", None])
def test_unknown_policies(policy: Any) -> None:
    scores = torch.zeros(2, 3, 4)
    message = rf"on_infeasible must be one of 'raise', 'mask', 'inf', got {policy!r}"
    calls: list[Callable[[], Any]] = [
        lambda: st.full_sum(scores, LENGTHS, ANY, on_infeasible=policy),
        lambda: st.compact_posteriors(scores, LENGTHS, ANY, on_infeasible=policy),
        lambda: st.posteriors(scores, LENGTHS, ANY, on_infeasible=policy),
        lambda: st.best_path(scores, LENGTHS, ANY, on_infeasible=policy),
        lambda: st.ctc_loss(scores, torch.ones(2, 1).long(), LENGTHS, LENGTHS, on_infeasible=policy),
    ]
    for call in calls:
        with pytest.raises(ArgumentError, match=message) as caught:
            call()
        assert caught.value.argument == "on_infeasible"
