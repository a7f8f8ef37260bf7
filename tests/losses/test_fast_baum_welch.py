"""Full-sum training: scales, priors, sources of automata, reductions."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain import reference
from seqtrain.errors import ArgumentError, InfeasibleError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.losses import FastBaumWelchLoss, PriorEstimator, fast_baum_welch_loss
from tests.fsa.strategies import quick
from tests.ops.examples import offsets_of, packed_rows, random_ctc_batch, random_topology
from tests.ops.gradient import scores_gradient

LOG_PRIOR = torch.randn(8, generator=torch.Generator().manual_seed(1)).log_softmax(0)
scales = hs.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0])


class Source:
    """Automata by name, as an aligner has them."""

    def __init__(self, graphs: FsaBatch) -> None:
        self.graphs = dict(zip("abc", graphs, strict=True))
        self.asked: list[list[str]] = []

    def automata(self, tags: Sequence[str]) -> FsaBatch:
        self.asked.append(list(tags))
        return FsaBatch.from_list([self.graphs[tag] for tag in tags], tags=tags)


@quick
@given(seed=hs.integers(0, 2**32), am_scale=scales, tdp_scale=scales, prior_scale=scales)
def test_scales_and_prior_against_the_reference(
    seed: int, am_scale: float, tdp_scale: float, prior_scale: float
) -> None:
    """Loss and gradient of -log Σ exp(am_scale · log p - prior_scale · log prior + tdp_scale · weights)."""
    logits, lengths, graphs = random_topology("hmm", seed, dtype=torch.float64)
    log_probs, log_prior = logits.log_softmax(-1), LOG_PRIOR.double()
    loss, gradient = scores_gradient(
        lambda x: fast_baum_welch_loss(
            x, lengths, graphs, am_scale=am_scale, tdp_scale=tdp_scale, log_prior=log_prior,
            prior_scale=prior_scale,
        ),
        log_probs,
    )  # fmt: skip
    scores = am_scale * log_probs - prior_scale * log_prior
    scaled = graphs.scale_weights(tdp_scale)
    for b, length in enumerate(lengths.tolist()):
        expected = reference.full_sum_gradients(scores[b, :length].numpy(), scaled[b])
        assert loss[b].item() == pytest.approx(-expected.score, rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(
            gradient[b, :length].numpy(), -am_scale * expected.scores, rtol=0, atol=1e-12
        )
        assert not gradient[b, length:].any()


def test_the_functions_defaults_are_the_full_sum() -> None:
    scores, lengths, graphs = random_topology("hmm", 1)
    assert torch.equal(fast_baum_welch_loss(scores, lengths, graphs), -st.full_sum(scores, lengths, graphs))


def test_scaled_weights_of_a_shared_automaton() -> None:
    scores, lengths, graphs = random_topology("ctc", 2)
    one = graphs[0]
    weighted = Fsa(one.arcs, torch.linspace(-1, 1, one.num_arcs), final=(one.final_states, one.final_weights))
    lengths = torch.full_like(lengths, scores.shape[1])
    copies = FsaBatch.from_list([weighted] * 3)
    assert torch.equal(
        fast_baum_welch_loss(scores, lengths, weighted, tdp_scale=0.3),
        fast_baum_welch_loss(scores, lengths, copies, tdp_scale=0.3),
    )


def test_a_scale_of_zero_keeps_forbidden_arcs_forbidden() -> None:
    fsa = Fsa([[0, 1, 0], [0, 1, 1]], [-torch.inf, -3.0])
    scores = torch.tensor([[[5.0, 1.0]]])
    loss = fast_baum_welch_loss(scores, torch.tensor([1]), fsa, tdp_scale=0.0)
    assert loss.item() == pytest.approx(-1.0, abs=1e-6)


def test_gradients_reach_the_weights_through_the_scale() -> None:
    scores, lengths, graphs = random_topology("hmm", 3)
    weights = graphs.weights.clone().requires_grad_()
    trainable = graphs.with_weights(weights)
    loss = fast_baum_welch_loss(scores, lengths, trainable, tdp_scale=0.25, reduction="sum")
    (found,) = torch.autograd.grad(loss, weights)
    scaled = (graphs.weights * 0.25).requires_grad_()
    finals = graphs.final_weights * 0.25
    (expected,) = torch.autograd.grad(
        st.full_sum(scores, lengths, graphs.with_weights(scaled, finals)).sum(), scaled
    )
    torch.testing.assert_close(found, -0.25 * expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_not_rounded_anew_by_the_scales(dtype: torch.dtype) -> None:
    scores, lengths, graphs = random_topology("hmm", 4, dtype=dtype)
    options = {"am_scale": 0.3, "log_prior": LOG_PRIOR, "prior_scale": 0.7}
    found = fast_baum_welch_loss(scores, lengths, graphs, **options)  # type: ignore[arg-type]  # of several types
    wide = fast_baum_welch_loss(scores.float(), lengths, graphs, **options)  # type: ignore[arg-type]  # likewise
    assert torch.equal(found, wide)
    _, gradient = scores_gradient(lambda x: fast_baum_welch_loss(x, lengths, graphs, am_scale=0.3), scores)
    assert gradient.dtype == dtype


@pytest.mark.parametrize("reduction", ["none", "sum", "batch", "frames"])
def test_reductions(reduction: str) -> None:
    scores, lengths, graphs = random_topology("hmm", 5)
    losses = fast_baum_welch_loss(scores, lengths, graphs)
    divisor = {"none": 1, "sum": 1, "batch": 3, "frames": int(lengths.sum())}[reduction]
    expected = losses if reduction == "none" else losses.sum() / divisor
    assert torch.equal(FastBaumWelchLoss(reduction=reduction)(scores, lengths, graphs), expected)


def test_packed() -> None:
    scores, lengths, graphs = random_topology("hmm", 6)
    packed = st.Packed(packed_rows(scores, lengths), offsets_of(lengths))
    prior = PriorEstimator(8)
    options: dict[str, Any] = {"am_scale": 0.4, "prior_scale": 0.5, "reduction": "none"}
    padded_loss = FastBaumWelchLoss(prior=copy.deepcopy(prior), **options)
    packed_loss = FastBaumWelchLoss(prior=prior, **options)
    log_probs = scores.log_softmax(-1)
    packed = packed._replace(values=packed.values.log_softmax(-1))
    for _ in range(2):
        padded = padded_loss(log_probs, lengths, graphs)
        torch.testing.assert_close(packed_loss(packed, lengths, graphs), padded, rtol=1e-6, atol=1e-5)
    assert int(prior.frames) == 2 * int(lengths.sum())


def test_a_floor_under_the_probabilities() -> None:
    """log max(p, floor), with the exact gradient: none where the floor is."""
    scores, lengths, graphs = random_topology("hmm", 16, dtype=torch.float64)
    log_probs = scores.log_softmax(-1)
    floored = log_probs.clamp(min=float(np.log(0.05)))
    loss, gradient = scores_gradient(
        lambda x: fast_baum_welch_loss(x, lengths, graphs, am_scale=0.5, min_prob=0.05), log_probs
    )
    expected, exact = scores_gradient(
        lambda x: fast_baum_welch_loss(x, lengths, graphs, am_scale=0.5), floored
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, exact.masked_fill(log_probs < np.log(0.05), 0.0))


def test_automata_of_targets() -> None:
    scores, targets, lengths, target_lengths = random_ctc_batch(17)
    loss = FastBaumWelchLoss(topology=st.fsa.ctc, reduction="none")
    expected = fast_baum_welch_loss(scores, lengths, st.fsa.ctc(targets, target_lengths))
    assert torch.equal(loss(scores, lengths, targets=targets, target_lengths=target_lengths), expected)
    for arguments in ({}, {"automata": ["a"], "targets": targets}):
        with pytest.raises(ArgumentError, match=r"pass either automata .* or targets"):
            loss(scores, lengths, **arguments)
    for other in (loss, FastBaumWelchLoss()):
        missing = {} if other is loss else {"target_lengths": target_lengths}
        with pytest.raises(ArgumentError, match="targets need their target_lengths, and a topology"):
            other(scores, lengths, targets=targets, **missing)


def test_names_lead_to_automata_through_a_source() -> None:
    scores, lengths, graphs = random_topology("hmm", 7)
    source = Source(graphs)
    loss = FastBaumWelchLoss(source, tdp_scale=0.5, reduction="none")
    expected = fast_baum_welch_loss(scores, lengths, graphs, tdp_scale=0.5)
    assert torch.equal(loss(scores, lengths, ["a", "b", "c"]), expected)
    swapped = loss(scores[[1, 0]], lengths[[1, 0]], ("b", "a"))
    assert torch.equal(swapped, expected[[1, 0]])
    assert source.asked == [["a", "b", "c"], ["b", "a"]]
    assert torch.equal(loss(scores, lengths, graphs), expected)
    assert len(source.asked) == 2


def test_an_infeasible_utterance_of_a_source_is_named() -> None:
    scores, _, graphs = random_topology("hmm", 8)
    loss = FastBaumWelchLoss(Source(graphs), tdp_scale=0.5)
    with pytest.raises(InfeasibleError, match=r"utterance 1 \(b\): 0 frames given, needs"):
        loss(scores, torch.tensor([20, 0, 20]), ["a", "b", "c"])
    masked = FastBaumWelchLoss(Source(graphs), on_infeasible="mask")
    masked(scores, torch.tensor([20, 0, 20]), ["a", "b", "c"])
    assert masked.infeasible.last_tags == ("b",)


def test_something_that_is_no_source() -> None:
    with pytest.raises(
        ArgumentError, match=r"automata must come from an AlignerClient, .*; int has no method automata"
    ):
        FastBaumWelchLoss(3)  # type: ignore[arg-type]  # that is what is tested


def test_names_without_a_source() -> None:
    scores, lengths, _ = random_topology("hmm", 9)
    with pytest.raises(
        ArgumentError, match="names of utterances were passed, but the loss has no source"
    ) as e:
        FastBaumWelchLoss()(scores, lengths, ["a", "b", "c"])
    assert e.value.argument == "automata"


def test_a_running_prior_follows_training_and_stands_still_in_evaluation() -> None:
    scores, lengths, graphs = random_topology("hmm", 10)
    log_probs = scores.log_softmax(-1).requires_grad_()
    prior = PriorEstimator(8, momentum=0.5)
    loss = FastBaumWelchLoss(prior=prior, prior_scale=0.3, reduction="none")
    inside = torch.arange(scores.shape[1]) < lengths[:, None]
    mean = log_probs.detach()[inside].double().exp().mean(dim=0)
    value = loss(log_probs, lengths, graphs)
    expected = (0.5 * mean + 0.5 / 8).log().float()
    torch.testing.assert_close(prior.log_prior, expected, rtol=1e-6, atol=1e-6)
    by_hand = fast_baum_welch_loss(log_probs, lengths, graphs, log_prior=prior.log_prior, prior_scale=0.3)
    assert torch.equal(value, by_hand)
    assert not prior.mean.requires_grad
    before = prior.mean.clone()
    loss.eval()(log_probs, lengths, graphs)
    assert torch.equal(prior.mean, before)


def test_a_counted_prior_is_not_moved_by_training() -> None:
    scores, lengths, graphs = random_topology("hmm", 11)
    prior = PriorEstimator(8, mode="counted")
    FastBaumWelchLoss(prior=prior, prior_scale=0.3)(scores.log_softmax(-1), lengths, graphs)
    assert int(prior.frames) == 0


@pytest.mark.parametrize(
    ("options", "argument", "message"),
    [
        ({"prior_scale": 0.5}, "prior_scale", "prior_scale = 0.5, but there is no prior"),
        (
            {"reduction": "targets"},
            "reduction",
            "must be one of 'none', 'sum', 'batch', 'frames', got 'targets'",
        ),
        ({"on_infeasible": "skip"}, "on_infeasible", "got 'skip'"),
        ({"min_prob": 1.0}, "min_prob", r"min_prob must lie in \[0, 1\), got 1.0"),
        ({"min_prob": -0.1}, "min_prob", r"min_prob must lie in \[0, 1\), got -0.1"),
    ],
)
def test_options(options: dict[str, Any], argument: str, message: str) -> None:
    scores, lengths, graphs = random_topology("hmm", 12)
    with pytest.raises(ArgumentError, match=message) as caught:
        FastBaumWelchLoss(**options)
    assert caught.value.argument == argument
    with pytest.raises(ArgumentError, match=message) as caught:
        fast_baum_welch_loss(scores, lengths, graphs, **options)
    assert caught.value.argument == argument


@pytest.mark.parametrize("size", [7, 1])
def test_a_prior_of_another_size(size: int) -> None:
    scores, lengths, graphs = random_topology("hmm", 13)
    with pytest.raises(ShapeError, match=rf"log_prior must have shape \(8,\), .*, got \({size},\)") as caught:
        FastBaumWelchLoss(prior=torch.zeros(size), prior_scale=1.0)(scores, lengths, graphs)
    assert caught.value.argument == "log_prior"


def test_scores_of_a_wrong_shape() -> None:
    _, lengths, graphs = random_topology("hmm", 14)
    with pytest.raises(ShapeError, match=r"scores must have 3 dimensions \(B, T, V\)"):
        fast_baum_welch_loss(torch.zeros(3, 8), lengths, graphs, am_scale=0.5)


def test_state_and_pickle() -> None:
    scores, lengths, graphs = random_topology("hmm", 15)
    loss = FastBaumWelchLoss(
        Source(graphs), prior=PriorEstimator(8), prior_scale=0.3, am_scale=0.5, reduction="none"
    )
    log_probs = scores.log_softmax(-1)
    loss(log_probs, lengths, graphs)
    assert set(loss.state_dict()) == {"prior.mean", "prior.frames"}
    fresh = FastBaumWelchLoss(prior=PriorEstimator(8), prior_scale=0.3, am_scale=0.5, reduction="none")
    fresh.load_state_dict(loss.state_dict())
    expected = loss.eval()(log_probs, lengths, graphs)
    assert torch.equal(fresh.eval()(log_probs, lengths, graphs), expected)
    other = pickle.loads(pickle.dumps(loss))
    assert torch.equal(other(log_probs, lengths, ["a", "b", "c"]), expected)
    fixed = FastBaumWelchLoss(prior=LOG_PRIOR, prior_scale=0.3)
    assert torch.equal(fixed.state_dict()["fixed_log_prior"], LOG_PRIOR)
    assert repr(fixed) == (
        "FastBaumWelchLoss(am_scale=1.0, tdp_scale=1.0, prior_scale=0.3, min_prob=0.0, "
        "reduction='batch', on_infeasible='raise')"
    )
