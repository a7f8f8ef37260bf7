"""Where automata meet the operators: batches, shared automata, names, and labels that don't fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import seqtrain as st
from seqtrain.errors import (
    DeviceError,
    DtypeError,
    FsaError,
    LabelError,
    NonFiniteScoresError,
    ShapeError,
)
from seqtrain.fsa import Fsa, FsaBatch

SCORES, LENGTHS = torch.zeros(2, 3, 4), torch.tensor([3, 2])
LOOP = Fsa([[0, 0, 0]])

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "full_sum": st.full_sum,
    "compact_posteriors": st.compact_posteriors,
    "posteriors": st.posteriors,
    "best_path": st.best_path,
}


@pytest.fixture(params=FUNCTIONS)
def function(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return FUNCTIONS[request.param]


def test_as_many_automata_as_utterances(function: Callable[..., Any]) -> None:
    with pytest.raises(
        ShapeError, match=r"fsa holds 3 automata for 2 utterances; one .* is passed as an Fsa"
    ) as e:
        function(SCORES, LENGTHS, FsaBatch.from_list([LOOP] * 3))
    assert e.value.argument == "fsa"
    with pytest.raises(ShapeError, match=r"fsa holds 1 automata for 2 utterances"):
        function(SCORES, LENGTHS, FsaBatch.from_list([LOOP]))


def test_a_label_that_the_scores_lack(function: Callable[..., Any]) -> None:
    graphs = FsaBatch.from_list([LOOP, Fsa([[0, 0, 3], [0, 0, 4]])])
    with pytest.raises(LabelError, match=r"arc 1 of automaton 1 has label 4, but scores have 4 labels") as e:
        function(SCORES, LENGTHS, graphs)
    error = e.value
    assert (error.argument, error.utterance, error.position) == ("fsa", 1, 1)
    assert (error.label, error.num_labels) == (4, 4)
    with pytest.raises(LabelError, match=r"arc 1 of automaton 0 has label 4"):
        function(SCORES, LENGTHS, graphs[1])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers(function: Callable[..., Any], value: float) -> None:
    scores = SCORES.clone()
    scores[1, 1, 0] = value
    message = r"scores of utterance 1 hold NaN or \+inf .* at frame 1; -inf is a legal score"
    with pytest.raises(NonFiniteScoresError, match=message) as e:
        function(scores, LENGTHS, LOOP)
    assert (e.value.argument, e.value.utterance, e.value.frame) == ("scores", 1, 1)


def test_scores_that_are_no_numbers_are_an_error_under_every_policy(function: Callable[..., Any]) -> None:
    """A diverged model is not an infeasible utterance."""
    for policy in ("raise", "mask", "inf"):
        with pytest.raises(NonFiniteScoresError):
            function(SCORES + torch.nan, LENGTHS, LOOP, on_infeasible=policy)


@pytest.mark.parametrize("weight", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers(weight: float) -> None:
    graphs = FsaBatch.from_list([LOOP, LOOP])
    with pytest.raises(FsaError, match="sequence 1, arc 0 has the weight"):
        graphs.with_weights(torch.tensor([0.0, weight]))


def test_what_is_no_automaton(function: Callable[..., Any]) -> None:
    with pytest.raises(DtypeError, match=r"fsa must be an FsaBatch, an Fsa or a k2\.Fsa, got list") as e:
        function(SCORES, LENGTHS, [LOOP, LOOP])
    assert e.value.argument == "fsa"


def test_automata_on_another_device(function: Callable[..., Any]) -> None:
    with pytest.raises(DeviceError, match=r"fsa is on meta, the scores on cpu: pass fsa\.to\('cpu'\)") as e:
        function(SCORES, LENGTHS, FsaBatch.from_list([LOOP, LOOP]).to("meta"))
    assert e.value.argument == "fsa"


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_an_optimizer_has_spoilt(function: Callable[..., Any], value: float) -> None:
    """They were fine when the automata were checked."""
    weights = torch.zeros(2)
    graphs = FsaBatch.from_list([LOOP, LOOP]).with_weights(weights)
    weights[1] = value
    with pytest.raises(FsaError, match=r"weight of arc 0 of automaton 1 is (nan|inf).* diverge") as e:
        function(SCORES, LENGTHS, graphs)
    assert (e.value.sequence, e.value.arc) == (1, 0)
    finals = torch.zeros(2)
    graphs = graphs.with_weights(torch.zeros(2), finals)
    finals[0] = value
    with pytest.raises(FsaError, match=r"final weight 0 of automaton 0 is (nan|inf)"):
        function(SCORES, LENGTHS, graphs)


def test_alignments_of_padded_scores_are_as_wide_as_the_scores() -> None:
    path = st.best_path(SCORES, LENGTHS, LOOP)
    assert path.labels.tolist() == [[0, 0, 0], [0, 0, -1]]
    assert path.states.tolist() == [[0, 0, 0], [0, 0, -1]]
    assert path.arcs.tolist() == [[0, 0, 0], [0, 0, -1]]
    assert path.lengths.tolist() == [3, 2]
    assert path.lengths.dtype == path.labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_dtypes_of_results(dtype: torch.dtype, value: torch.dtype) -> None:
    scores = SCORES.to(dtype)
    assert st.full_sum(scores, LENGTHS, LOOP).dtype == value
    assert st.best_path(scores, LENGTHS, LOOP).score.dtype == value
    assert st.posteriors(scores, LENGTHS, LOOP).dtype == dtype
    compact = st.compact_posteriors(scores, LENGTHS, LOOP)
    assert compact.value.dtype == compact.occupancies.dtype == value
    assert compact.labels.dtype == torch.int64


def test_no_gradient_is_computed_where_none_is_asked_for() -> None:
    leaf = SCORES.clone().requires_grad_()
    assert not st.full_sum(SCORES, LENGTHS, LOOP).requires_grad
    with torch.no_grad():
        assert not st.full_sum(leaf, LENGTHS, LOOP).requires_grad
    with torch.inference_mode():
        assert st.full_sum(leaf, LENGTHS, LOOP).tolist() == [0.0, 0.0]
    assert not st.compact_posteriors(leaf, LENGTHS, LOOP).value.requires_grad


def test_a_gradient_to_weights_alone() -> None:
    weights = torch.tensor([0.5, -0.5], requires_grad=True)
    graphs = FsaBatch.from_list([LOOP, LOOP]).with_weights(weights)
    (gradient,) = torch.autograd.grad(st.full_sum(SCORES, LENGTHS, graphs).sum(), weights)
    assert gradient.tolist() == [3.0, 2.0]


def test_the_weights_of_several_automata_lead_back_to_their_own_tensors() -> None:
    first, second = (torch.zeros(1, requires_grad=True) for _ in range(2))
    graphs = FsaBatch.from_list([Fsa([[0, 0, 0]], first), Fsa([[0, 0, 1]], second)])
    value = st.full_sum(SCORES, LENGTHS, graphs)
    gradients = torch.autograd.grad(value.sum(), (first, second))
    assert [gradient.tolist() for gradient in gradients] == [[3.0], [2.0]]


def test_the_scores_are_not_changed() -> None:
    scores = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    copy = scores.clone()
    leaf = scores.requires_grad_()
    torch.autograd.grad(st.full_sum(leaf, LENGTHS, LOOP).sum(), leaf)
    st.posteriors(scores.detach(), LENGTHS, LOOP)
    st.best_path(scores.detach(), LENGTHS, LOOP)
    assert torch.equal(scores.detach(), copy)
