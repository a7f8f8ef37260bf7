"""Hypotheses out of lattices: the k best are the true k best, samples have CTC's distribution."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.errors import ArgumentError, ShapeError
from seqtrain.fsa import Fsa
from seqtrain.losses import LatticeSearch, MWERLoss, mwer_loss
from seqtrain.losses.mwer import hypothesis_scores
from tests.fsa.strategies import quick
from tests.losses.test_mwer import FULL, REFERENCE_LENGTHS, REFERENCES, collapse, everything, logits_of


@quick
@given(seed=hs.integers(0, 10**6), count=hs.integers(1, 12))
def test_the_best_sequences_are_the_true_ones(seed: int, count: int) -> None:
    scores = logits_of(seed).detach()
    found = LatticeSearch.ctc(3, count=count)(scores, torch.tensor([4, 2]))
    for b, frames in enumerate((4, 2)):
        best: dict[tuple[int, ...], float] = {}
        for path in itertools.product(range(3), repeat=frames):
            score = float(scores[b, torch.arange(frames), list(path)].sum())
            best[collapse(path)] = max(best.get(collapse(path), -np.inf), score)
        wanted = sorted(best, key=lambda said: -best[said])[:count]
        ours = [
            tuple(found.labels[b, k, : found.lengths[b, k]].tolist()) for k in range(int(found.counts[b]))
        ]
        assert ours == wanted


def test_sampled_paths_have_the_distribution_of_ctc() -> None:
    scores = logits_of(5, batch=1).log_softmax(-1).detach()
    draws = 20_000
    search = LatticeSearch.ctc(3, count=draws, draw="sample", generator=torch.Generator().manual_seed(3))
    found = search(scores, FULL[:1])
    expected = hypothesis_scores(scores, FULL[:1], found)[0].exp() * draws
    statistic = float(((found.drawn[0] - expected) ** 2 / expected).sum())
    cells = int(found.counts[0])
    assert cells - 1 - 4 * np.sqrt(2 * cells) < statistic < cells - 1 + 4 * np.sqrt(2 * cells)


def test_more_of_the_best_come_closer_to_the_exact_risk() -> None:
    logits = logits_of(2)
    exact = mwer_loss(
        logits, REFERENCES, FULL, REFERENCE_LENGTHS, everything(logits), normalize=True
    ).detach()
    errors = [
        float(
            (
                MWERLoss("nbest", count=n, reduction="none")(logits, REFERENCES, FULL, REFERENCE_LENGTHS)
                - exact
            )
            .detach()
            .abs()
            .max()
        )
        for n in (2, 12, 100)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-9


def test_a_beam_that_truncated_is_reported() -> None:
    logits = logits_of(3).detach()
    search = LatticeSearch.ctc(3, count=3, max_active=1)
    assert search.truncated is None
    search(logits, FULL)
    assert search.truncated is not None
    assert bool((search.truncated > 0).all())


def test_utterances_without_a_path_have_no_hypotheses() -> None:
    graph = Fsa([[0, 1, 1], [1, 2, 2]])
    found = LatticeSearch(graph, [1, 2])(logits_of(4).detach(), torch.tensor([2, 3]))
    assert found.counts.tolist() == [1, 0]
    assert found.labels[0, 0].tolist() == [1, 2]


def test_without_label_loops_each_label_speaks() -> None:
    scores = torch.full((1, 2, 2), -5.0)
    scores[:, :, 1] = 0.0
    found = LatticeSearch.ctc(2, label_loop=False, count=1)(scores, torch.tensor([2]))
    assert found.labels.tolist() == [[[1, 1]]]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ShapeError, match="tokens must be one for each of the 1 arcs"):
        LatticeSearch(Fsa([[0, 1, 1]]), [1, 2])
    with pytest.raises(ArgumentError, match="draw must be 'best' or 'sample'"):
        LatticeSearch.ctc(3, draw="beam")
    with pytest.raises(ArgumentError, match="count must be at least 1"):
        LatticeSearch.ctc(3, count=0)
    with pytest.raises(ArgumentError, match="blank must lie in 0 … 2"):
        LatticeSearch.ctc(3, blank=3)
