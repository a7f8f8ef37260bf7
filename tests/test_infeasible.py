"""Utterances without a path: named, counted, and without influence on the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

import seqtrain as st
from seqtrain.errors import InfeasibleError
from seqtrain.fsa import Fsa, FsaBatch

V = 3
FINE = Fsa([[0, 0, 0]])
CASES: dict[str, tuple[Fsa, int, int | None, str]] = {
    "too short": (Fsa([[0, 1, 0], [1, 2, 1], [2, 2, 1]]), 1, 2, "too few frames for the shortest path"),
    "too long": (Fsa([[0, 1, 0], [1, 2, 1]]), 4, None, r"more frames than the longest path .* has \(2\)"),
    "odd": (Fsa([[0, 1, 0], [1, 0, 1]], final={0: 0.0}), 3, None, "no path has exactly that many frames"),
    "nothing accepted": (Fsa([[0, 1, 0]], num_states=3), 2, None, "its automaton accepts nothing"),
    "no final state": (Fsa([[0, 0, 0]], final={}), 2, None, "its automaton accepts nothing"),
    "forbidden arcs": (Fsa([[0, 1, 0]], [-torch.inf]), 1, None, "its automaton accepts nothing"),
    "forbidden end": (Fsa([[0, 0, 0]], final={0: -torch.inf}), 2, None, "its automaton accepts nothing"),
    "scores": (Fsa([[0, 0, 2]]), 3, None, r"probability zero \(a score or weight of -inf"),
    "no frames": (Fsa([[0, 1, 0]]), 0, 1, "too few frames for the shortest path"),
}
"""Of each: the automaton, the frames given, the frames needed, and why there is no path."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "full_sum": st.full_sum,
    "posteriors": st.posteriors,
    "best_path": st.best_path,
    "compact_posteriors": st.compact_posteriors,
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def batch(name: str) -> tuple[torch.Tensor, torch.Tensor, FsaBatch]:
    """The case between two utterances that are fine; label 2 scores -inf."""
    automaton, frames, _, _ = CASES[name]
    scores = torch.randn(3, 5, V, generator=torch.Generator().manual_seed(0))
    scores[:, :, 2] = -torch.inf
    graphs = FsaBatch.from_list([FINE, automaton, FINE], tags=["first", "corpus/utt-17", "last"])
    return scores, torch.tensor([5, frames, 4]), graphs


@pytest.mark.parametrize("function", FUNCTIONS)
def test_raise_names_the_utterance_and_the_numbers(function: str, case: str) -> None:
    _, frames, needed, reason = CASES[case]
    message = rf"1 utterance\(s\) without any path:\n  utterance 1 \(corpus/utt-17\): {frames} frames given"
    message += rf", needs {needed}" if needed is not None else ""
    with pytest.raises(InfeasibleError, match=message) as caught:
        FUNCTIONS[function](*batch(case))
    (item,) = caught.value.utterances
    assert (item.index, item.tag, item.frames, item.frames_needed) == (1, "corpus/utt-17", frames, needed)
    with pytest.raises(InfeasibleError, match=reason):
        FUNCTIONS[function](*batch(case))
    assert "pass on_infeasible='mask'" in str(caught.value)


@pytest.mark.parametrize(("policy", "value"), [("mask", 0.0), ("inf", -torch.inf)])
def test_mask_and_inf(case: str, policy: str, value: float) -> None:
    """The others have the value and the gradient that they have without it; it has none."""
    scores, lengths, graphs = batch(case)
    weights = graphs.weights.clone().requires_grad_()
    leaf = scores.clone().requires_grad_()
    found = st.full_sum(leaf, lengths, graphs.with_weights(weights), on_infeasible=policy)
    assert found[1] == value
    to_scores, to_weights = torch.autograd.grad(found.sum(), (leaf, weights))
    assert not to_scores[1].any()
    first, last = graphs.arc_offsets[1:3].tolist()
    assert not to_weights[first:last].any()
    fine = [0, 2]
    alone = scores[fine].requires_grad_()
    expected = st.full_sum(alone, lengths[fine], FsaBatch.from_list([FINE, FINE]))
    assert torch.equal(found[fine], expected)
    assert torch.equal(to_scores[fine], torch.autograd.grad(expected.sum(), alone)[0])
    assert to_weights[[0, -1]].tolist() == [5.0, 4.0]


@pytest.mark.parametrize(("policy", "value"), [("mask", 0.0), ("inf", -torch.inf)])
def test_best_path_and_posteriors(case: str, policy: str, value: float) -> None:
    scores, lengths, graphs = batch(case)
    path = st.best_path(scores, lengths, graphs, on_infeasible=policy)
    assert path.score[1] == value
    assert bool((torch.stack([path.labels[1], path.states[1], path.arcs[1]]) == -1).all())
    assert path.labels[0].tolist() == [0] * 5
    posteriors = st.posteriors(scores, lengths, graphs, on_infeasible=policy)
    assert not posteriors[1].any()
    assert posteriors[0, :, 0].tolist() == [1.0] * 5
    assert st.compact_posteriors(scores, lengths, graphs, on_infeasible=policy).value[1] == value


@pytest.mark.parametrize("policy", ["mask", "inf"])
def test_it_is_counted_and_logged(case: str, policy: str, caplog: pytest.LogCaptureFixture) -> None:
    scores, lengths, graphs = batch(case)
    count = st.InfeasibleCount()
    for calls, function in enumerate((st.full_sum, st.posteriors, st.best_path), start=1):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="seqtrain"):
            function(scores, lengths, graphs, on_infeasible=policy, infeasible=count)
        assert (count.infeasible, count.utterances) == (calls, 3 * calls)
        assert (count.last, count.last_tags) == ((1,), ("corpus/utt-17",))
        message = f"1 of 3 utterances have no path (on_infeasible='{policy}'): corpus/utt-17"
        assert [record.getMessage() for record in caplog.records] == [message]
    assert repr(count) == "InfeasibleCount(3 of 9 utterances)"


def test_a_batch_without_any_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    count = st.InfeasibleCount()
    scores, lengths = torch.zeros(2, 3, V), torch.tensor([3, 0])
    st.full_sum(scores, lengths, FINE, on_infeasible="mask", infeasible=count)
    assert (count.infeasible, count.utterances, count.last) == (0, 2, ())
    assert not caplog.records


def test_the_log_names_five_and_counts_the_others(caplog: pytest.LogCaptureFixture) -> None:
    scores, lengths = torch.zeros(8, 1, V), torch.zeros(8, dtype=torch.int64)
    st.full_sum(scores, lengths, Fsa([[0, 1, 0]]), on_infeasible="mask")
    assert caplog.messages == [
        "8 of 8 utterances have no path (on_infeasible='mask'): 0, 1, 2, 3, 4 and 3 more"
    ]


def test_the_error_lists_twenty_and_holds_all() -> None:
    scores, lengths = torch.zeros(23, 1, V), torch.zeros(23, dtype=torch.int64)
    with pytest.raises(InfeasibleError, match=r"23 utterance\(s\) without any path") as caught:
        st.full_sum(scores, lengths, Fsa([[0, 1, 0]]))
    assert "… and 3 more (see the field `utterances`)" in str(caught.value)
    assert [item.index for item in caught.value.utterances] == list(range(23))
    assert {item.tag for item in caught.value.utterances} == {None}
    assert "utterance 0: 0 frames given, needs 1" in str(caught.value)


@pytest.mark.parametrize("policy", ["mask", "inf"])
def test_all_of_a_batch(policy: str) -> None:
    scores = torch.randn(3, 2, V, generator=torch.Generator().manual_seed(0)).requires_grad_()
    graphs = st.fsa.linear([[0, 1, 0]] * 3, [3, 3, 3])
    value = st.full_sum(scores, torch.tensor([2, 1, 0]), graphs, on_infeasible=policy)
    assert value.tolist() == [0.0 if policy == "mask" else -torch.inf] * 3
    (gradient,) = torch.autograd.grad(value.sum(), scores)
    assert not gradient.any()


def test_weights_of_the_losses_do_not_matter_to_it() -> None:
    """Not even an infinite incoming gradient becomes NaN."""
    scores, lengths, graphs = batch("too short")
    weights = graphs.weights.clone().requires_grad_()
    leaf = scores.clone().requires_grad_()
    value = st.full_sum(leaf, lengths, graphs.with_weights(weights), on_infeasible="inf")
    incoming = torch.tensor([1.0, torch.nan, 1.0])
    to_scores, to_weights = torch.autograd.grad(value, (leaf, weights), incoming)
    assert not to_scores[1].any()
    assert not to_scores.isnan().any()
    assert to_weights.isfinite().all()


# CTC


def ctc_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Utterance 1 has five targets and needs seven frames, since two pairs of neighbours are equal."""
    scores = torch.randn(3, 8, V, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, 1, 0, 0], [1, 1, 2, 2, 1], [2, 0, 0, 0, 0]])
    return scores, targets, torch.tensor([8, 6, 8]), torch.tensor([3, 5, 1])


@pytest.mark.parametrize("normalize", [False, True])
def test_ctc_names_frames_and_frames_needed(normalize: bool) -> None:
    message = r"utterance 1 \(second\): 6 frames given, needs 7: 5 targets don't fit"
    with pytest.raises(InfeasibleError, match=message) as caught:
        st.ctc_loss(*ctc_batch(), normalize=normalize, tags=["first", "second", "third"])
    (item,) = caught.value.utterances
    assert (item.index, item.tag, item.frames, item.frames_needed) == (1, "second", 6, 7)
    scores, targets, _, target_lengths = ctc_batch()
    fits = torch.tensor([8, 7, 8])
    assert st.ctc_loss(scores, targets, fits, target_lengths, normalize=normalize).isfinite().all()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("policy", "value"), [("mask", 0.0), ("inf", torch.inf)])
def test_ctc_mask_and_inf(
    normalize: bool, policy: str, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    scores, *rest = ctc_batch()
    leaf, count = scores.requires_grad_(), st.InfeasibleCount()
    loss = st.ctc_loss(
        leaf, *rest, normalize=normalize, on_infeasible=policy, infeasible=count, tags=["a", "b", "c"]
    )
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    assert loss[1] == value
    assert not gradient[1].any()
    assert gradient[0].any()
    fine = [0, 2]
    alone = scores.detach()[fine].requires_grad_()
    expected = st.ctc_loss(alone, *(tensor[fine] for tensor in rest), normalize=normalize)
    assert torch.equal(loss[fine], expected)
    assert torch.equal(gradient[fine], torch.autograd.grad(expected.sum(), alone)[0])
    assert (count.infeasible, count.last_tags) == (1, ("b",))
    assert caplog.messages == [f"1 of 3 utterances have no path (on_infeasible='{policy}'): b"]


def test_ctc_where_every_path_scores_minus_infinity() -> None:
    scores, targets, _, target_lengths = ctc_batch()
    scores[1, 3] = -torch.inf
    lengths = torch.tensor([8, 8, 8])
    with pytest.raises(InfeasibleError, match=r"utterance 1: 8 frames given: .*probability zero"):
        st.ctc_loss(scores, targets, lengths, target_lengths)
    leaf = scores.requires_grad_()
    loss = st.ctc_loss(leaf, targets, lengths, target_lengths, on_infeasible="mask")
    assert loss[1] == 0
    assert not torch.autograd.grad(loss.sum(), leaf)[0][1].any()


def test_ctc_without_frames_for_targets() -> None:
    scores = torch.zeros(2, 0, V)
    targets, target_lengths = torch.ones(2, 1, dtype=torch.int64), torch.tensor([1, 0])
    with pytest.raises(InfeasibleError, match="utterance 0: 0 frames given, needs 1: 1 targets don't fit"):
        st.ctc_loss(scores, targets, torch.tensor([0, 0]), target_lengths)
    loss = st.ctc_loss(scores, targets, torch.tensor([0, 0]), target_lengths, on_infeasible="inf")
    assert loss.tolist() == [torch.inf, 0.0]
