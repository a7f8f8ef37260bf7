"""MMI and lattice-free MMI: values and gradients by the reference's sums, options, policies, diagnostics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain import reference
from seqtrain.errors import ArgumentError, DtypeError, InfeasibleError
from seqtrain.fsa import Fsa, FsaBatch, stationary_distribution
from seqtrain.losses import LFMMILoss, MMILoss, lf_mmi_loss, mmi_loss, mmi_terms, sequence_diagnostics
from tests.fsa.strategies import quick
from tests.ops.examples import offsets_of, packed_rows, random_ctc_batch
from tests.ops.gradient import scores_gradient

LABELS = 7


def denominator(dtype: torch.dtype = torch.float64) -> Fsa:
    """Every sequence of labels with CTC's blanks: one state a label, a repeated label only after a blank."""
    arcs = [[p, q, q] for p in range(LABELS) for q in range(LABELS)]
    weights = torch.linspace(-1.5, -0.1, len(arcs), dtype=dtype)
    return Fsa(arcs, weights, num_states=LABELS, final={s: -0.1 * s for s in range(LABELS)})


def example(seed: int) -> tuple[torch.Tensor, torch.Tensor, FsaBatch, torch.Tensor]:
    batch = random_ctc_batch(seed, batch=3, frames=10, targets=3, dtype=torch.float64)
    numerators = st.fsa.ctc(batch.targets, batch.target_lengths)
    return batch.scores, batch.lengths, numerators, batch.target_lengths


@quick
@given(
    seed=hs.integers(0, 2**32),
    den_scale=hs.sampled_from([1.0, 0.7]),
    acoustic_scale=hs.sampled_from([1.0, 0.3]),
    boost=hs.sampled_from([0.0, 0.5]),
    leak=hs.sampled_from([0.0, 0.1]),
)
def test_against_the_reference(
    seed: int, den_scale: float, acoustic_scale: float, boost: float, leak: float
) -> None:
    scores, lengths, numerators, _ = example(seed)
    graph = denominator()
    loss, gradient = scores_gradient(
        lambda x: mmi_loss(
            x,
            lengths,
            numerators,
            graph,
            den_scale=den_scale,
            acoustic_scale=acoustic_scale,
            boost=boost,
            leak=leak,
        ),
        scores,
    )
    distribution = stationary_distribution(graph).numpy()
    for b, length in enumerate(lengths.tolist()):
        x = acoustic_scale * scores[b, :length].numpy()
        over = reference.full_sum_gradients(x, numerators[b])
        under = reference.leaky_full_sum_gradients(
            x - boost * over.scores, graph, leak=leak, distribution=distribution
        )
        assert loss[b].item() == pytest.approx(den_scale * under.score - over.score, rel=1e-10, abs=1e-10)
        expected = acoustic_scale * (den_scale * under.scores - over.scores)
        np.testing.assert_allclose(gradient[b, :length].numpy(), expected, atol=1e-10)
        assert not gradient[b, length:].any()


@pytest.mark.parametrize("kind", ["ctc", "ce"])
def test_smoothing(kind: str) -> None:
    scores, lengths, numerators, _ = example(1)
    graph = denominator()

    def total(x: torch.Tensor) -> torch.Tensor:
        return mmi_loss(x, lengths, numerators, graph, smoothing=0.5, smoothing_kind=kind)

    shares = st.posteriors(scores, lengths, numerators)

    def expected(x: torch.Tensor) -> torch.Tensor:
        normalized = x.log_softmax(-1)
        soft = -(shares * normalized).sum((1, 2))
        term = -st.full_sum(normalized, lengths, numerators) if kind == "ctc" else soft
        return mmi_loss(x, lengths, numerators, graph) + 0.5 * term

    for found, wanted in zip(scores_gradient(total, scores), scores_gradient(expected, scores), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_alternatives_raise_the_numerator() -> None:
    """Two transcripts as parallel paths: their probabilities add."""
    scores = torch.randn(2, 4, LABELS, dtype=torch.float64)
    lengths = torch.tensor([4, 4])
    one, other = [[0, 1, 1], [1, 1, 1]], [[0, 2, 2], [2, 2, 2]]
    both = Fsa([*one, *other], final={1: 0.0, 2: 0.0})
    losses = [
        mmi_loss(scores, lengths, FsaBatch.from_list([fsa] * 2), denominator())
        for fsa in (Fsa(one), Fsa(other), both)
    ]
    torch.testing.assert_close(-losses[2], torch.logaddexp(-losses[0], -losses[1]))


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_what_must_hold_of_every_loss(smoothing: float) -> None:
    scores, lengths, numerators, _ = example(2)
    graph = denominator()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return lf_mmi_loss(x, lengths, numerators, graph, boost=0.2, smoothing=smoothing, smoothing_kind="ce")

    _, once = scores_gradient(loss, scores)
    _, twice = scores_gradient(lambda x: 2 * loss(x), scores)
    torch.testing.assert_close(2 * once, twice, rtol=1e-14, atol=0)
    weight = torch.tensor([0.0, 2.0, 0.5], dtype=torch.float64)
    _, weighted = scores_gradient(lambda x: weight * loss(x), scores)
    torch.testing.assert_close(weighted, weight[:, None, None] * once)
    shifted = scores + torch.randn(3, 10, 1, dtype=torch.float64)
    torch.testing.assert_close(loss(shifted), loss(scores))
    packed = st.Packed(packed_rows(scores, lengths), offsets_of(lengths))
    same = lf_mmi_loss(
        packed, lengths, numerators, graph, boost=0.2, smoothing=smoothing, smoothing_kind="ce"
    )
    torch.testing.assert_close(same, loss(scores))


def test_reductions() -> None:
    scores, lengths, numerators, target_lengths = example(3)
    graph = denominator()
    none = mmi_loss(scores, lengths, numerators, graph)
    divisors = {"sum": 1, "batch": 3, "frames": int(lengths.sum()), "targets": int(target_lengths.sum())}
    for reduction, divisor in divisors.items():
        found = mmi_loss(
            scores, lengths, numerators, graph, reduction=reduction, target_lengths=target_lengths
        )
        torch.testing.assert_close(found, none.sum() / divisor)
        module = MMILoss(graph, topology=st.fsa.ctc, reduction=reduction)
        assert torch.equal(module(scores, lengths, numerators, target_lengths=target_lengths), found)
    with pytest.raises(ArgumentError, match="reduction='targets' needs target lengths"):
        mmi_loss(scores, lengths, numerators, graph, reduction="targets")
    with pytest.raises(ArgumentError, match="reduction must be one of"):
        mmi_loss(scores, lengths, numerators, graph, reduction="mean")


def test_the_sums_that_a_loss_is_made_of() -> None:
    scores, lengths, numerators, _ = example(3)
    graph = denominator()
    terms = mmi_terms(scores, lengths, numerators, graph, den_scale=0.5, leak=0.1)
    assert torch.equal(terms.numerator, st.full_sum(scores, lengths, numerators))
    assert torch.equal(terms.denominator, st.leaky_full_sum(scores, lengths, graph, leak=0.1))
    assert torch.equal(terms.losses, 0.5 * terms.denominator - terms.numerator)
    module = LFMMILoss(graph, den_scale=0.5, leak=0.1)
    for own, found in zip(module.terms(scores, lengths, numerators), terms, strict=True):
        assert torch.equal(own, found)


def test_utterances_are_named() -> None:
    scores, targets, lengths, target_lengths = random_ctc_batch(5, batch=3, frames=10, targets=3)
    module = LFMMILoss(denominator(torch.float32), topology=st.fsa.ctc)
    short = lengths.clone()
    short[1] = 0
    with pytest.raises(InfeasibleError, match=r"utterance 1 \(second\)"):
        module(
            scores, short, targets=targets.clamp(min=1), target_lengths=target_lengths.clamp(min=1),
            tags=["first", "second", "third"],
        )  # fmt: skip
    with pytest.raises(ArgumentError, match=r"numerators bring their own tags: FsaBatch\.with_tags"):
        module(scores, lengths, st.fsa.ctc(targets, target_lengths), tags=["first", "second", "third"])


def test_an_utterance_that_the_numerator_does_not_fit() -> None:
    scores, lengths, numerators, _ = example(4)
    graph = denominator()
    impossible = FsaBatch.from_list([numerators[0], Fsa([[0, 1, 1]]), numerators[2]])
    with pytest.raises(InfeasibleError):
        mmi_loss(scores, lengths, impossible, graph)
    module = LFMMILoss(graph, reduction="none", on_infeasible="mask", smoothing=0.1, boost=0.1)
    loss, gradient = scores_gradient(lambda x: module(x, lengths, impossible), scores)
    assert loss[1].item() == 0.0
    assert not gradient[1].any()
    assert gradient[[0, 2]].any()
    assert module.infeasible.last == (1,)
    loss, gradient = scores_gradient(
        lambda x: mmi_loss(x, lengths, impossible, graph, on_infeasible="inf"), scores
    )
    assert loss[1].item() == math.inf
    assert not gradient[1].any()
    assert bool(gradient.isfinite().all())


def test_modules() -> None:
    scores, targets, lengths, target_lengths = random_ctc_batch(5, batch=3, frames=10, targets=3)
    graph = denominator(torch.float32)
    numerators = st.fsa.ctc(targets, target_lengths)
    for kind, leak in ((MMILoss, 0.0), (LFMMILoss, 1e-5)):
        module = kind(graph, topology=st.fsa.ctc)
        found = module(scores, lengths, targets=targets, target_lengths=target_lengths)
        assert torch.equal(found, module(scores, lengths, numerators))
        assert torch.equal(found, mmi_loss(scores, lengths, numerators, graph, leak=leak, reduction="batch"))
        with pytest.raises(ArgumentError, match="pass either numerators, or targets"):
            module(scores, lengths)
        with pytest.raises(ArgumentError, match="targets need their target_lengths, and a topology"):
            kind(graph)(scores, lengths, targets=targets, target_lengths=target_lengths)
        assert "leak" in repr(module)


def test_options_outside_their_range() -> None:
    scores, lengths, numerators, _ = example(6)
    graph = denominator()
    with pytest.raises(ArgumentError, match="boost must be a finite number >= 0, got -1"):
        mmi_loss(scores, lengths, numerators, graph, boost=-1.0)
    with pytest.raises(ArgumentError, match="smoothing_kind must be one of 'ctc', 'ce', got 'l2'"):
        MMILoss(graph, smoothing_kind="l2")
    with pytest.raises(
        DtypeError, match="denominator must be one Fsa that all utterances share, got FsaBatch"
    ):
        mmi_loss(scores, lengths, numerators, numerators)  # type: ignore[arg-type]


def test_diagnostics() -> None:
    scores, lengths, numerators, target_lengths = example(7)
    numerators = FsaBatch.from_list([numerators[0], Fsa([[0, 1, 1]]), numerators[2]])
    sums = st.full_sum(scores, lengths, denominator())
    found = sequence_diagnostics(
        scores, lengths, numerators, denominator_sums=sums, silence=0, target_lengths=target_lengths
    )
    frames = int(lengths[[0, 2]].sum())
    gamma = torch.cat(
        [
            torch.from_numpy(reference.posteriors(scores[b, : lengths[b]].numpy(), numerators[b]))
            for b in (0, 2)
        ]
    )
    over = [reference.full_sum(scores[b, : lengths[b]].numpy(), numerators[b]) for b in (0, 2)]
    assert found.gap == pytest.approx((sum(over) - float(sums[[0, 2]].sum())) / frames)
    assert found.occupancy == pytest.approx(1.0)
    assert found.silence_share == pytest.approx(float(gamma[:, 0].mean()))
    assert found.alignment_entropy == pytest.approx(float(torch.special.entr(gamma).sum(1).mean()))
    assert found.expected_duration == pytest.approx(
        float(gamma[:, 1:].sum()) / int(target_lengths[[0, 2]].sum())
    )
    assert found.infeasible_share == pytest.approx(1 / 3)
    assert all(isinstance(value, float) for value in found.scalars().values())
    packed = st.Packed(packed_rows(scores, lengths), offsets_of(lengths))
    again = sequence_diagnostics(
        packed, lengths, numerators, denominator_sums=sums, silence=0, target_lengths=target_lengths
    )
    assert again.scalars() == pytest.approx(found.scalars())
    nothing = sequence_diagnostics(
        scores[:1], lengths[:1], FsaBatch.from_list([Fsa([], num_states=1, final={})])
    )
    assert math.isnan(nothing.occupancy)
    assert nothing.infeasible_share == 1.0
