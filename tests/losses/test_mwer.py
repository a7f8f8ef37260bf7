"""Minimum word error rate training: exact scores of hypotheses, both estimates against enumeration, what is refused."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain.errors import ArgumentError, InfeasibleError, LabelError, NonFiniteScoresError, ShapeError
from seqtrain.losses import Hypotheses, MWERLoss, ctc_loss, edit_distance, mwer_loss, sample_ctc_hypotheses
from seqtrain.losses.mwer import hypothesis_scores
from tests.fsa.strategies import quick

FRAMES, LABELS = 4, 3


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(v for v, _ in itertools.groupby(path) if v != 0)


def everything(scores: torch.Tensor) -> Hypotheses:
    """Every label sequence that fits the frames, of each utterance."""
    frames, labels = scores.shape[1:]
    found = sorted({collapse(path) for path in itertools.product(range(labels), repeat=frames)})
    return Hypotheses.from_lists([found for _ in range(scores.shape[0])])


def exact_risk(log_probabilities: torch.Tensor, reference: list[int]) -> torch.Tensor:
    """Expected edit distance over all frame labelings of one utterance (T, V), one by one."""
    total = log_probabilities.new_zeros(())
    for path in itertools.product(range(log_probabilities.shape[1]), repeat=log_probabilities.shape[0]):
        said = collapse(path)
        distance = edit_distance(
            torch.tensor([said], dtype=torch.int64).view(1, -1), torch.tensor([reference]), torch.tensor([len(said)]),
            torch.tensor([len(reference)]),
        )  # fmt: skip
        total = total + log_probabilities[torch.arange(len(path)), list(path)].sum().exp() * float(distance)
    return total


def logits_of(seed: int, batch: int = 2, frames: int = FRAMES, labels: int = LABELS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, labels, generator=generator, dtype=torch.float64).requires_grad_()


REFERENCES, REFERENCE_LENGTHS = torch.tensor([[1, 2], [2, 0]]), torch.tensor([2, 1])
FULL = torch.tensor([FRAMES, FRAMES])


def test_all_hypotheses_give_the_exact_risk_and_gradient() -> None:
    logits = logits_of(1)
    loss = mwer_loss(logits, REFERENCES, FULL, REFERENCE_LENGTHS, everything(logits), normalize=True)
    log_probabilities = logits.log_softmax(-1)
    exact = torch.stack([exact_risk(log_probabilities[0], [1, 2]), exact_risk(log_probabilities[1], [2])])
    torch.testing.assert_close(loss, exact, rtol=1e-9, atol=1e-9)
    ours, theirs = (torch.autograd.grad(value.sum(), logits)[0] for value in (loss, exact))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_best_hypotheses_converge_to_the_exact_risk() -> None:
    logits = logits_of(2)
    whole = everything(logits)
    exact = mwer_loss(logits, REFERENCES, FULL, REFERENCE_LENGTHS, whole, normalize=True)
    scores = hypothesis_scores(logits.log_softmax(-1).detach(), FULL, whole)
    errors = []
    for count in (1, 4, 10, whole.labels.shape[1]):
        best = [
            [
                whole.labels[b, k, : whole.lengths[b, k]].tolist()
                for k in scores[b].argsort(descending=True)[:count]
            ]
            for b in range(2)
        ]
        loss = mwer_loss(
            logits, REFERENCES, FULL, REFERENCE_LENGTHS, Hypotheses.from_lists(best), normalize=True
        )
        errors.append(float((loss - exact).detach().abs().max()))
    assert errors[0] > errors[2] > errors[3]
    assert errors[3] < 1e-9


def test_the_sampled_estimate_is_unbiased() -> None:
    """Value and gradient, averaged over many small samples, within four standard errors."""
    logits = logits_of(3, batch=1)
    lengths, references, reference_lengths = FULL[:1], REFERENCES[:1], REFERENCE_LENGTHS[:1]
    exact = exact_risk(logits.log_softmax(-1)[0], [1, 2])
    (gradient,) = torch.autograd.grad(exact, logits)
    generator = torch.Generator().manual_seed(0)
    values, gradients = [], []
    rounds, repeats = 60, 32
    batch = logits.detach().expand(repeats, -1, -1)
    for _ in range(rounds):
        leaf = batch.clone().requires_grad_()
        drawn = sample_ctc_hypotheses(leaf, lengths.expand(repeats), 3, generator=generator)
        loss = mwer_loss(
            leaf, references.expand(repeats, -1), lengths.expand(repeats), reference_lengths.expand(repeats), drawn,
            estimate="sampled", normalize=True,
        )  # fmt: skip
        values.append(loss.detach())
        gradients.append(torch.autograd.grad(loss.sum(), leaf)[0])
    for found, true in ((torch.cat(values), exact.detach()), (torch.cat(gradients), gradient[0])):
        error = found.std(dim=0) / np.sqrt(rounds * repeats)
        assert bool(((found.mean(dim=0) - true).abs() < 4 * error + 1e-12).all())


@quick
@given(seed=hs.integers(0, 10**6))
def test_scores_of_hypotheses_are_those_of_ctc(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = torch.from_numpy(random.normal(size=(2, 5, 9)))
    lists = [[random.integers(1, 9, size=random.integers(0, 4)).tolist() for _ in range(3)] for _ in range(2)]
    hypotheses = Hypotheses.from_lists(lists)
    lengths = torch.tensor([5, 3])
    found = hypothesis_scores(scores, lengths, hypotheses)
    for b, k in itertools.product(range(2), range(hypotheses.labels.shape[1])):
        if k < hypotheses.counts[b]:
            loss = ctc_loss(
                scores[b : b + 1], hypotheses.labels[b, k : k + 1], lengths[b : b + 1],
                hypotheses.lengths[b, k : k + 1], on_infeasible="inf",
            )  # fmt: skip
            assert float(found[b, k]) == pytest.approx(-float(loss), rel=1e-12)


def test_gradients_by_finite_differences() -> None:
    logits = logits_of(4)
    hypotheses = Hypotheses.from_lists([[[1], [1, 2], []], [[2], [2, 1]]])

    def value(x: torch.Tensor) -> torch.Tensor:
        return mwer_loss(x, REFERENCES, FULL, REFERENCE_LENGTHS, hypotheses, normalize=True)

    assert torch.autograd.gradcheck(value, (logits,))


def test_samples_have_the_distribution_of_ctc() -> None:
    """Chi-square of the counts of each label sequence."""
    logits = logits_of(5, batch=1).detach()
    draws = 20_000
    found = sample_ctc_hypotheses(logits, FULL[:1], draws, generator=torch.Generator().manual_seed(1))
    probabilities = hypothesis_scores(logits.log_softmax(-1), FULL[:1], found)[0].exp()
    expected = probabilities * draws
    assert int(found.drawn.sum()) == draws
    statistic = float(((found.drawn[0] - expected) ** 2 / expected).sum())
    cells = int(found.counts[0])
    assert cells - 1 - 4 * np.sqrt(2 * cells) < statistic < cells - 1 + 4 * np.sqrt(2 * cells)
    again = sample_ctc_hypotheses(logits, FULL[:1], draws, generator=torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_hypotheses_are_distinct_and_counted() -> None:
    found = Hypotheses.from_lists([[[1, 2], [3], [1, 2]], []])
    assert found.labels.tolist() == [[[1, 2], [3, 0]], [[0, 0], [0, 0]]]
    assert found.lengths.tolist() == [[2, 1], [0, 0]]
    assert (found.counts.tolist(), found.drawn.tolist()) == ([2, 0], [[2, 1], [0, 0]])


def test_packed_scores_and_padding_make_no_difference() -> None:
    logits, lengths = logits_of(6), torch.tensor([4, 3])
    hypotheses = Hypotheses.from_lists([[[1], [1, 2]], [[2], []]])
    spoilt = logits.detach().clone()
    spoilt[1, 3] = 50.0
    packed = st.Packed(torch.cat([logits[0], logits[1, :3]]), torch.tensor([0, 4, 7]))
    found = [
        mwer_loss(given, REFERENCES, lengths, REFERENCE_LENGTHS, hypotheses, normalize=True)
        for given in (logits, spoilt, packed)
    ]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_a_constant_on_a_frame_leaves_value_and_gradient() -> None:
    """Without normalization: what all hypotheses share doesn't count."""
    logits = logits_of(7)
    hypotheses = Hypotheses.from_lists([[[1], [1, 2]], [[2], [], [2]]])
    results = []
    for shift in (0.0, 5.0):
        leaf = (logits.detach() + shift).requires_grad_()
        loss = mwer_loss(leaf, REFERENCES, FULL, REFERENCE_LENGTHS, hypotheses)
        results.append((loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("estimate", ["renormalized", "sampled"])
def test_training_lowers_the_error(estimate: str) -> None:
    torch.manual_seed(0)
    logits = torch.zeros(2, 6, 4)
    loss = MWERLoss(count=16, estimate=estimate)
    references, lengths = torch.tensor([[1, 2, 3], [3, 1, 0]]), torch.tensor([6, 6])
    values = []
    for _ in range(150):
        leaf = logits.requires_grad_()
        value = loss(leaf, references, lengths, torch.tensor([3, 2]))
        logits = (leaf - 2.0 * torch.autograd.grad(value, leaf)[0]).detach()
        values.append(float(value.detach()))
    assert np.mean(values[-20:]) < 0.3 * np.mean(values[:5])


def test_infeasible_hypotheses_count_for_nothing_and_utterances_without_any_are_named() -> None:
    logits = logits_of(8)
    lengths = torch.tensor([4, 1])
    fits = Hypotheses.from_lists([[[1]], [[2], [1, 2, 1]]])
    alone = Hypotheses.from_lists([[[1]], [[2]]])
    both = [mwer_loss(logits, REFERENCES, lengths, REFERENCE_LENGTHS, h) for h in (fits, alone)]
    torch.testing.assert_close(both[0], both[1])
    bad = Hypotheses.from_lists([[[1]], [[1, 2]]])
    with pytest.raises(
        InfeasibleError, match="utterance 1: 1 frames given: none of its hypotheses has a path"
    ):
        mwer_loss(logits, REFERENCES, lengths, REFERENCE_LENGTHS, bad)
    with pytest.raises(InfeasibleError, match=r"utterance 1 \(second\): 1 frames given: none of its"):
        MWERLoss()(logits, REFERENCES, lengths, REFERENCE_LENGTHS, hypotheses=bad, tags=["first", "second"])
    loss = MWERLoss(on_infeasible="mask", reduction="none")
    value = loss(logits, REFERENCES, lengths, REFERENCE_LENGTHS, hypotheses=bad)
    assert value.tolist() == [1.0, 0.0]
    assert loss.infeasible.last == (1,)
    assert bool((torch.autograd.grad(value.sum(), logits)[0] == 0).all())
    infinite = mwer_loss(logits, REFERENCES, lengths, REFERENCE_LENGTHS, bad, on_infeasible="inf")
    assert infinite.tolist() == [1.0, torch.inf]
    none = Hypotheses.from_lists([[[1]], []])
    with pytest.raises(InfeasibleError, match="it has no hypotheses"):
        mwer_loss(logits, REFERENCES, lengths, REFERENCE_LENGTHS, none)


def test_empty_batches_and_utterances() -> None:
    empty = mwer_loss(
        torch.zeros(0, 3, 4), torch.zeros(0, 2).long(), torch.zeros(0).long(), torch.zeros(0).long(),
        Hypotheses.from_lists([]),
    )  # fmt: skip
    assert empty.shape == (0,)
    silent = MWERLoss(count=2)(
        torch.zeros(1, 0, 4), torch.tensor([[1]]), torch.tensor([0]), torch.tensor([1])
    )
    assert float(silent) == 1.0


def test_reductions_and_a_search_of_ones_own() -> None:
    logits = logits_of(9)
    hypotheses = Hypotheses.from_lists([[[1], [1, 2]], [[2], [1]]])

    def search(log_probabilities: torch.Tensor, lengths: torch.Tensor) -> Hypotheses:
        torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(2, 4).double())
        assert not log_probabilities.requires_grad
        return hypotheses

    each = mwer_loss(logits, REFERENCES, FULL, REFERENCE_LENGTHS, hypotheses, normalize=True)
    for reduction, divisor in (("sum", 1), ("batch", 2), ("frames", 8), ("targets", 3)):
        loss = MWERLoss(search, reduction=reduction)(logits, REFERENCES, FULL, REFERENCE_LENGTHS)
        torch.testing.assert_close(loss, each.sum() / divisor)


def test_bad_arguments_are_named() -> None:
    one = Hypotheses.from_lists([[[1]], [[2]]])
    with pytest.raises(ShapeError, match="tags must name 2 utterances, got 1"):
        mwer_loss(logits_of(1), REFERENCES, FULL, REFERENCE_LENGTHS, one, tags=["first"])
    logits = logits_of(10)
    one = Hypotheses.from_lists([[[1]], [[1]]])
    with pytest.raises(ArgumentError, match="estimate must be one of 'renormalized', 'sampled'"):
        mwer_loss(logits, REFERENCES, FULL, REFERENCE_LENGTHS, one, estimate="nbest")
    with pytest.raises(ArgumentError, match="two draws at least.*utterance 0 has 1"):  # noqa: RUF043
        mwer_loss(logits, REFERENCES, FULL, REFERENCE_LENGTHS, one, estimate="sampled")
    with pytest.raises(ShapeError, match="hypotheses are of 1 utterances, the scores of 2"):
        mwer_loss(logits, REFERENCES, FULL, REFERENCE_LENGTHS, Hypotheses.from_lists([[[1]]]))
    with pytest.raises(LabelError, match="label 0 of hypothesis 0 of utterance 1 is 3"):
        mwer_loss(logits, REFERENCES, FULL, REFERENCE_LENGTHS, Hypotheses.from_lists([[[1]], [[3]]]))
    with pytest.raises(LabelError, match=r"not the blank \(0\)"):
        mwer_loss(logits, REFERENCES, FULL, REFERENCE_LENGTHS, Hypotheses.from_lists([[[0]], [[1]]]))
    with pytest.raises(ArgumentError, match="search must be 'sample', 'nbest' or callable"):
        MWERLoss("beam")
    with pytest.raises(ArgumentError, match="the n best aren't samples"):
        MWERLoss("nbest", estimate="sampled")
    with pytest.raises(ArgumentError, match="count must be at least 2"):
        MWERLoss(count=1)
    with pytest.raises(ArgumentError, match="count must be at least 1"):
        sample_ctc_hypotheses(logits, FULL, 0)
    spoilt = logits.detach().clone()
    spoilt[1, 2, 0] = torch.nan
    with pytest.raises(
        NonFiniteScoresError, match="utterance 1 hold NaN or \\+inf, or no value above -inf, at frame 2"
    ):
        sample_ctc_hypotheses(spoilt, FULL, 2)
    assert pickle.loads(pickle.dumps(MWERLoss())).count == 8
