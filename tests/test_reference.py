"""The recursions against brute force, finite differences and other implementations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqtrain import reference
from seqtrain.errors import LabelError, NonFiniteScoresError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch, ctc
from tests.fsa.strategies import automata, quick, score_tables

RETURNN = Path(__file__).parent / "goldens" / "returnn"


def same(value: float, other: float) -> bool:
    return value == other or abs(value - other) <= 1e-12 * max(1.0, abs(value))


@quick
@given(automata(dtype=torch.float64), score_tables())
def test_recursions_agree_with_brute_force(fsa: Fsa, scores: np.ndarray) -> None:
    paths = list(reference.enumerate_paths(scores, fsa))
    total = float(np.logaddexp.reduce([path.score for path in paths])) if paths else -np.inf
    gradients = reference.full_sum_gradients(scores, fsa)
    assert same(reference.full_sum(scores, fsa), total)
    assert same(gradients.score, total)

    to_scores, to_weights = np.zeros_like(scores), np.zeros(fsa.num_arcs)
    to_final = np.zeros(fsa.num_states)
    for path in paths:
        probability = np.exp(path.score - total)
        for t, (arc, label) in enumerate(zip(path.arcs, path.labels, strict=True)):
            to_scores[t, label] += probability
            to_weights[arc] += probability
        to_final[path.states[-1] if path.states else fsa.start] += probability
    np.testing.assert_allclose(gradients.scores, to_scores, atol=1e-12)
    np.testing.assert_allclose(gradients.weights, to_weights, atol=1e-12)
    np.testing.assert_allclose(gradients.final_weights, to_final[fsa.final_states.numpy()], atol=1e-12)
    np.testing.assert_array_equal(reference.posteriors(scores, fsa), gradients.scores)


@quick
@given(automata(dtype=torch.float64), score_tables())
def test_best_path_is_a_path_of_the_highest_score(fsa: Fsa, scores: np.ndarray) -> None:
    found = reference.best_path(scores, fsa)
    paths = {path.arcs: path for path in reference.enumerate_paths(scores, fsa)}
    assert same(found.score, max((path.score for path in paths.values()), default=-np.inf))
    if paths:
        path = paths[tuple(found.arcs.tolist())]
        assert same(path.score, found.score)
        assert path.states == tuple(found.states.tolist())
        assert path.labels == tuple(found.labels.tolist())
    else:
        assert (found.arcs == -1).all()
        assert (found.states == -1).all()
        assert (found.labels == -1).all()


def test_best_path_takes_the_first_of_equal_arcs_and_the_lowest_of_equal_final_states() -> None:
    fsa = Fsa([[0, 2, 0], [0, 2, 0], [0, 1, 0]], final={2: 0.0, 1: 0.0})
    assert reference.best_path(np.zeros((1, 1)), fsa).states.tolist() == [1]
    fsa = Fsa([[0, 1, 0], [0, 1, 0], [1, 2, 0], [1, 2, 0]])
    assert reference.best_path(np.zeros((2, 1)), fsa).arcs.tolist() == [0, 2]


def test_posteriors_sum_to_one_in_each_frame() -> None:
    scores = np.random.default_rng(0).normal(scale=5, size=(40, 6))
    fsa = ctc([[1, 1, 5, 2]], [4])[0]
    np.testing.assert_allclose(reference.posteriors(scores, fsa).sum(axis=1), 1.0, atol=1e-12)


def test_without_a_path_the_sum_is_minus_infinity_and_derivatives_are_zero() -> None:
    fsa = ctc([[1, 1]], [2])[0]
    gradients = reference.full_sum_gradients(np.zeros((2, 3)), fsa)
    assert gradients.score == -np.inf
    assert not gradients.scores.any()
    assert not gradients.weights.any()
    assert not gradients.final_weights.any()


@quick
@given(st.lists(st.integers(1, 3), max_size=3), score_tables(max_frames=6))
def test_ctc_recursion_agrees_with_the_automaton(targets: list[int], scores: np.ndarray) -> None:
    result = reference.ctc_loss(scores, targets)
    width = max(len(targets), 1)
    fsa = ctc(np.array([targets + [0] * (width - len(targets))]), [len(targets)])[0]
    general = reference.full_sum_gradients(scores, fsa)
    assert same(result.loss, -general.score)
    np.testing.assert_allclose(result.gradient, -general.scores, atol=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
def test_ctc_gradient_agrees_with_finite_differences(normalize: bool) -> None:
    random = np.random.default_rng(1)
    scores, targets = random.normal(size=(5, 4)), [2, 2]
    gradient = reference.ctc_loss(scores, targets, normalize=normalize).gradient
    step = 1e-6
    for t, v in np.ndindex(*scores.shape):
        up, down = scores.copy(), scores.copy()
        up[t, v] += step
        down[t, v] -= step
        slope = (
            reference.ctc_loss(up, targets, normalize=normalize).loss
            - reference.ctc_loss(down, targets, normalize=normalize).loss
        ) / (2 * step)
        assert gradient[t, v] == pytest.approx(slope, abs=1e-8)


def test_ctc_agrees_with_torch() -> None:
    logits = torch.randn(30, 1, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    logits.requires_grad_()
    targets = torch.tensor([[3, 3, 1, 5, 2]])
    loss = torch.nn.functional.ctc_loss(
        logits.log_softmax(-1), targets, torch.tensor([30]), torch.tensor([5]), reduction="sum"
    )
    loss.backward()
    assert logits.grad is not None
    result = reference.ctc_loss(logits.detach().numpy()[:, 0], targets[0].tolist(), normalize=True)
    assert result.loss == pytest.approx(loss.item(), rel=1e-12)
    np.testing.assert_allclose(result.gradient, logits.grad.numpy()[:, 0], atol=1e-12)


def test_ctc_without_frames_or_targets() -> None:
    assert reference.ctc_loss(np.zeros((0, 3)), []).loss == 0.0
    assert reference.ctc_loss(np.zeros((0, 3)), [1]).loss == np.inf
    assert reference.ctc_loss(np.zeros((2, 4)), [], normalize=True).loss == pytest.approx(2 * np.log(4))
    silent = reference.ctc_loss(np.full((2, 3), -np.inf), [1], normalize=True)
    assert silent.loss == np.inf
    assert not silent.gradient.any()


@pytest.mark.parametrize(
    "name", ["hmm3", "hmm3_impossible", "infweight", "negweights", "skip", "unnormalized"]
)
def test_agrees_with_returnn(name: str) -> None:
    data = np.load(RETURNN / f"fbw_op_{name}.npz")
    arguments = (None, data["in_edges"], data["in_weights"], data["in_start_end_states"])
    batch = FsaBatch.from_rasr(*arguments)
    for index, frames in enumerate(data["in_lens"]):
        scores = -data["in_am_scores"][:frames, index].astype(np.float64)
        total = reference.full_sum(scores, batch[index])
        posteriors = reference.posteriors(scores, batch[index])
        # RETURNN reports 0 where there is no path.
        recorded = data["obs_scores"][0, index]
        assert (-total if total > -np.inf else 0.0) == pytest.approx(recorded, rel=2e-4, abs=5e-5)
        np.testing.assert_allclose(posteriors, np.exp(-data["fwdbwd"][:frames, index]), rtol=2e-4, atol=5e-5)
        best = reference.best_path(scores, batch[index])
        assert best.score == pytest.approx(data["viterbi_score"][index], rel=2e-4)
        if best.score > -np.inf:
            assert best.labels.tolist() == data["viterbi_alignment"][:frames, index].tolist()


def test_scores_that_cannot_be_used_are_refused() -> None:
    fsa = Fsa([[0, 1, 2]])
    with pytest.raises(ShapeError, match=r"scores must have the shape \(T, V\), got \(3,\)"):
        reference.full_sum(np.zeros(3), fsa)
    with pytest.raises(LabelError, match="label 2 is outside the 2 columns"):
        reference.full_sum(np.zeros((1, 2)), fsa)
    with pytest.raises(NonFiniteScoresError, match="NaN or \\+inf at frame 1"):
        reference.full_sum(np.array([[0.0], [np.nan]]), Fsa([[0, 0, 0]]))
    with pytest.raises(LabelError, match="position 1 holds 0, the blank"):
        reference.ctc_loss(np.zeros((3, 2)), [1, 0])
    with pytest.raises(LabelError, match="label 7 is outside the 2 columns"):
        reference.ctc_loss(np.zeros((3, 2)), [7])
