"""One automaton for all utterances: the kernel that computes them side by side, and the leaky sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain import reference
from seqtrain.errors import (
    ArgumentError,
    DerivativeError,
    DeviceError,
    DtypeError,
    FsaError,
    InfeasibleError,
    ShapeError,
)
from seqtrain.fsa import Fsa, FsaBatch, stationary_distribution
from tests.fsa.strategies import automata, quick, score_tables
from tests.ops.exact import assert_full_sum_exact, assert_leaky_exact, close, frames_of, tolerance, trainable
from tests.ops.examples import DTYPES, ergodic, offsets_of, packed_rows, random_fsa, random_scores
from tests.ops.gradient import gradient, scores_gradient
from tests.ops.test_determinism import threads


@quick
@given(fsa=automata(dtype=torch.float64), tables=hs.lists(score_tables(), min_size=2, max_size=3))
def test_brute_force(fsa: Fsa, tables: list[np.ndarray]) -> None:
    """Any small automaton, cyclic or not: the sum of the paths, counted one by one."""
    frames = max(len(table) for table in tables)
    scores = torch.zeros(len(tables), frames, tables[0].shape[1], dtype=torch.float64)
    for b, table in enumerate(tables):
        scores[b, : len(table)] = torch.from_numpy(table)
    lengths = torch.tensor([len(table) for table in tables])
    value, posteriors = scores_gradient(lambda x: st.full_sum(x, lengths, fsa, on_infeasible="inf"), scores)
    for b, table in enumerate(tables):
        paths = list(reference.enumerate_paths(table, fsa))
        total = np.logaddexp.reduce([path.score for path in paths]) if paths else -np.inf
        expected = np.zeros(scores.shape[1:])
        for path in paths:
            expected[np.arange(len(table)), list(path.labels)] += np.exp(path.score - total)
        close(value[b], total, absolute=1e-9, relative=1e-9)
        close(posteriors[b], expected, absolute=1e-9, relative=0)


@quick
@given(seed=hs.integers(0, 2**32), batch=hs.integers(2, 20), dtype=hs.sampled_from(DTYPES))
def test_random_automata(seed: int, batch: int, dtype: torch.dtype) -> None:
    random = np.random.default_rng(seed)
    double = torch.float64 if dtype == torch.float64 else torch.float32
    fsa = random_fsa(random, states=6, arcs=25, labels=5, acyclic=seed % 4 == 0, dtype=double)
    lengths = torch.from_numpy(random.integers(0, 8, size=batch))
    scores = random_scores(random, batch, 7, 5, dtype=dtype)
    assert_full_sum_exact(scores, lengths, fsa)
    assert_leaky_exact(scores, lengths, fsa, random.dirichlet(np.ones(6)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("all_final", [True, False])
@pytest.mark.parametrize("batch", [2, 8, 9, 17])
def test_ergodic(batch: int, all_final: bool, dtype: torch.dtype) -> None:
    random = np.random.default_rng(batch)
    fsa = ergodic(random, 40, 5, 23, all_final=all_final)
    lengths = torch.from_numpy(random.integers(12, 31, size=batch))
    scores = random_scores(random, batch, 30, 23, dtype=dtype)
    value, posteriors = scores_gradient(lambda x: st.full_sum(x, lengths, fsa), scores)
    absolute, relative = tolerance(dtype)
    for b, length in enumerate(lengths.tolist()):
        expected = reference.full_sum_gradients(frames_of(scores, b, length), fsa)
        close(value[b], expected.score, absolute=absolute, relative=absolute)
        close(posteriors[b, :length], expected.scores, absolute=2 * absolute, relative=relative)


@pytest.mark.parametrize("scale", [1.0, 12.0, 60.0, 400.0])
@pytest.mark.parametrize("all_final", [True, False])
def test_peaky_scores(scale: float, all_final: bool) -> None:
    """Scaled floats can't hold these; whoever doubts, computes again in a wider format."""
    random = np.random.default_rng(3)
    fsa = ergodic(random, 12, 3, 9, all_final=all_final)
    scores = random_scores(random, 3, 300, 9, scale=scale)
    value, posteriors = scores_gradient(lambda x: st.full_sum(x, torch.full((3,), 300), fsa), scores)
    for b in range(3):
        expected = reference.full_sum_gradients(frames_of(scores, b, 300), fsa)
        close(value[b], expected.score, absolute=0, relative=1e-6)
        close(posteriors[b], expected.scores, absolute=2e-6 * max(1.0, scale / 4), relative=0)


def test_two_ways_that_each_sweep_loses() -> None:
    """Of two equally good ways one is far behind at first, far ahead then, and far behind at the end."""
    fsa = Fsa([[0, 1, 0], [1, 1, 0], [0, 2, 1], [2, 2, 1]], final={1: 0.0, 2: 0.0})
    lead = torch.tensor([-200.0] * 4 + [400.0] * 4 + [-200.0] * 4)
    scores = torch.stack((torch.zeros(12), lead), dim=1).expand(4, -1, -1)
    value, posteriors = scores_gradient(lambda x: st.full_sum(x, torch.full((4,), 12), fsa), scores)
    close(value, np.full(4, np.log(2)), absolute=1e-5, relative=0)
    close(posteriors, np.full((4, 12, 2), 0.5), absolute=1e-5, relative=0)


def test_ten_thousand_frames() -> None:
    random = np.random.default_rng(4)
    fsa = ergodic(random, 8, 3, 6, all_final=False)
    scores = random_scores(random, 2, 10_000, 6, scale=12.0)
    value, posteriors = scores_gradient(lambda x: st.full_sum(x, torch.full((2,), 10_000), fsa), scores)
    expected = reference.full_sum_gradients(frames_of(scores, 1, 10_000), fsa)
    close(value[1], expected.score, absolute=0, relative=1e-6)
    close(posteriors[1], expected.scores, absolute=1e-5, relative=0)


def test_weights_beyond_the_range_of_scaled_floats() -> None:
    random = np.random.default_rng(5)
    for weight in (-90.0, -700.0):
        fsa = Fsa([[0, 1, 0], [1, 0, 1], [1, 1, 1]], torch.tensor([0.5, weight, 0.0]), final={0: weight})
        assert_full_sum_exact(random_scores(random, 3, 6, 2), torch.tensor([6, 4, 5]), fsa)


def test_alone_and_in_company_and_for_any_number_of_threads() -> None:
    """Bits of an utterance depend neither on its neighbours nor on threads."""
    random = np.random.default_rng(6)
    fsa = ergodic(random, 50, 6, 31)
    scores = random_scores(random, 37, 60, 31)
    lengths = torch.from_numpy(random.integers(1, 61, size=37))

    def both(order: torch.Tensor) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        for function in (st.full_sum, st.leaky_full_sum):
            found += scores_gradient(lambda x: function(x, lengths[order], fsa), scores[order])  # noqa: B023  # called here
        return found

    everyone = torch.arange(37)
    whole = both(everyone)
    for count in (2, 3, 7):
        with threads(count):
            assert all(torch.equal(a, b) for a, b in zip(whole, both(everyone), strict=True))
    for order in (torch.from_numpy(random.permutation(37)), torch.tensor([3, 30])):
        found = both(order)
        assert all(torch.equal(a[order], b) for a, b in zip(whole, found, strict=True))


def test_packed_is_padded_and_padding_is_not_read() -> None:
    random = np.random.default_rng(7)
    fsa = ergodic(random, 20, 4, 11)
    scores = random_scores(random, 5, 14, 11)
    lengths = torch.tensor([14, 1, 0, 9, 14])
    for b, length in enumerate(lengths.tolist()):
        scores[b, length:] = torch.nan
    packed = packed_rows(scores, lengths)
    for function in (st.full_sum, st.leaky_full_sum):
        value, padded = scores_gradient(lambda x: function(x, lengths, fsa), scores)  # noqa: B023  # called here
        offsets = offsets_of(lengths)
        same, rows = scores_gradient(lambda x: function(st.Packed(x, offsets), lengths, fsa), packed)  # noqa: B023
        assert torch.equal(value, same)
        assert torch.equal(packed_rows(padded, lengths), rows)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_posteriors_are_the_gradient(dtype: torch.dtype) -> None:
    """Bit for bit, without a derivative of their own; with one, they are those of the general kernel."""
    random = np.random.default_rng(5)
    fsa = ergodic(random, 30, 4, 11, all_final=False)
    lengths = torch.tensor([20, 0, 9, 14])
    scores = random_scores(random, 4, 20, 11, dtype=dtype)
    packed = st.Packed(packed_rows(scores, lengths), offsets_of(lengths))
    _, gradient = scores_gradient(lambda x: st.full_sum(x, lengths, fsa, on_infeasible="mask"), scores)
    assert torch.equal(st.posteriors(scores, lengths, fsa, on_infeasible="mask"), gradient)
    found = st.posteriors(packed, lengths, fsa, on_infeasible="mask")
    assert torch.equal(found, packed_rows(gradient, lengths))
    leaf = scores.clone().requires_grad_()
    with torch.no_grad():
        assert torch.equal(st.posteriors(leaf, lengths, fsa, on_infeasible="mask"), gradient)
    recorded = st.posteriors(leaf, lengths, fsa, on_infeasible="mask")
    assert recorded.requires_grad
    close(
        recorded.double(),
        gradient.double().numpy(),
        absolute=tolerance(dtype)[0],
        relative=tolerance(dtype)[1],
    )
    with pytest.raises(InfeasibleError, match="utterance 1"):
        st.posteriors(scores, lengths, fsa)


@quick
@given(seed=hs.integers(0, 2**32))
def test_relabelling_and_constants(seed: int) -> None:
    """Another numbering changes nothing; a constant a frame is added to the value and leaves the gradient."""
    random = np.random.default_rng(seed)
    fsa = random_fsa(random, states=7, arcs=30, labels=6, dtype=torch.float64)
    scores, lengths = random_scores(random, 3, 9, 6, dtype=torch.float64), torch.tensor([9, 5, 7])
    arcs, states, labels = random.permutation(30), random.permutation(7), random.permutation(6)
    old = fsa.arcs.numpy()[arcs]
    renamed = Fsa(
        np.column_stack((states[old[:, 0]], states[old[:, 1]], labels[old[:, 2]])),
        fsa.weights[torch.from_numpy(arcs)],
        num_states=7,
        start=int(states[fsa.start]),
        final=(states[fsa.final_states.numpy()], fsa.final_weights),
    )
    moved = torch.empty_like(scores)
    moved[:, :, torch.from_numpy(labels)] = scores
    constants = torch.from_numpy(random.normal(scale=50, size=(3, 9)))

    def mask(x: torch.Tensor, graph: Fsa) -> tuple[torch.Tensor, torch.Tensor]:
        return scores_gradient(lambda s: st.full_sum(s, lengths, graph, on_infeasible="mask"), x)

    value, posteriors = mask(scores, fsa)
    same, again = mask(moved, renamed)
    close(same, value.numpy(), absolute=1e-10, relative=1e-12)
    close(again[:, :, torch.from_numpy(labels)], posteriors.numpy(), absolute=1e-12, relative=0)
    shifted, unmoved = mask(scores + constants[:, :, None], fsa)
    inside = torch.arange(9)[None] < lengths[:, None]
    expected = value + torch.where(posteriors.sum((1, 2)) > 0, (constants * inside).sum(1), 0.0)
    close(shifted, expected.numpy(), absolute=1e-9, relative=1e-12)
    close(unmoved, posteriors.numpy(), absolute=1e-11, relative=0)


def test_an_infeasible_utterance_among_others() -> None:
    random = np.random.default_rng(8)
    fsa = Fsa([[0, 1, 0], [1, 2, 1], [2, 0, 2], [2, 2, 2]], final={2: 0.0})
    scores = random_scores(random, 4, 6, 3)
    scores[2, 3] = -torch.inf
    lengths = torch.tensor([6, 1, 6, 5])
    with pytest.raises(InfeasibleError, match="utterance 1: 1 frames given, needs 2"):
        st.full_sum(scores, lengths, fsa)
    assert_full_sum_exact(scores, lengths, fsa)
    value, posteriors = scores_gradient(lambda x: st.full_sum(x, lengths, fsa, on_infeasible="mask"), scores)
    assert value[[1, 2]].tolist() == [0.0, 0.0]
    assert not posteriors[[1, 2]].any()
    alone = st.full_sum(scores[[0, 3]], lengths[[0, 3]], fsa)
    assert torch.equal(value[[0, 3]], alone)


def test_gradients_by_differences() -> None:
    random = np.random.default_rng(9)
    fsa = random_fsa(random, states=5, arcs=20, labels=4, forbidden=0.0, dtype=torch.float64)
    scores = random_scores(random, 2, 5, 4, dtype=torch.float64).requires_grad_()
    graph, weights, finals = trainable(fsa)
    lengths = torch.tensor([5, 4])

    def function(x: torch.Tensor, w: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        given = Fsa(graph.arcs, w, num_states=5, start=fsa.start, final=(fsa.final_states, f))
        return torch.cat(
            (
                st.full_sum(x, lengths, given),
                st.leaky_full_sum(x, lengths, given, leak=0.2, distribution=torch.full((5,), 0.2)),
            )
        )

    assert torch.autograd.gradcheck(function, (scores, weights, finals))


def test_weights_that_change_after_the_layout_was_kept() -> None:
    random = np.random.default_rng(10)
    fsa = ergodic(random, 6, 3, 5)
    scores, lengths = random_scores(random, 2, 8, 5), torch.tensor([8, 8])
    first = st.full_sum(scores, lengths, fsa)
    fsa.weights[0] = -torch.inf
    fsa.weights[1] += 1.0
    second = st.full_sum(scores, lengths, fsa)
    assert not torch.equal(first, second)
    for b in range(2):
        close(second[b], reference.full_sum(frames_of(scores, b, 8), fsa), absolute=2e-6, relative=2e-6)


def test_twice_the_loss_has_twice_the_gradient() -> None:
    random = np.random.default_rng(11)
    fsa = ergodic(random, 6, 3, 5)
    scores, lengths = random_scores(random, 3, 8, 5), torch.tensor([8, 5, 8])
    _, once = scores_gradient(lambda x: st.leaky_full_sum(x, lengths, fsa), scores)
    _, twice = scores_gradient(lambda x: 2 * st.leaky_full_sum(x, lengths, fsa), scores)
    assert torch.equal(2 * once, twice)


def test_a_leaky_sum_has_no_second_derivative() -> None:
    random = np.random.default_rng(12)
    scores = random_scores(random, 2, 4, 5).requires_grad_()
    value = st.leaky_full_sum(scores, torch.tensor([4, 4]), ergodic(random, 6, 3, 5))
    (first,) = torch.autograd.grad(value.sum(), scores, create_graph=True)
    with pytest.raises(DerivativeError, match="a leaky sum has no second derivative"):
        gradient(first.square().sum(), scores)


def test_stationary_distribution() -> None:
    fsa = Fsa(
        [[0, 1, 0], [1, 1, 0], [1, 2, 0], [2, 1, 0]],
        torch.tensor([0.5, 0.25, 0.75, 1.0]).log(),
        final={1: 0.0},
    )
    found = stationary_distribution(fsa, steps=2000)
    np.testing.assert_allclose(found.numpy(), [0.0, 4 / 7, 3 / 7], atol=1e-3)
    assert stationary_distribution(fsa, steps=2000) is found
    with pytest.raises(FsaError, match="no walk of 2 arcs leaves state 0"):
        stationary_distribution(Fsa([[0, 1, 0]]))


def test_arguments_of_the_leaky_sum() -> None:
    scores, lengths = torch.zeros(2, 3, 2), torch.tensor([3, 3])
    fsa = Fsa([[0, 0, 0], [0, 0, 1]], final={0: 0.0})
    with pytest.raises(DtypeError, match="takes one Fsa that all utterances share, got FsaBatch"):
        st.leaky_full_sum(scores, lengths, FsaBatch.from_list([fsa, fsa]))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="leak must be a finite number >= 0, got -1"):
        st.leaky_full_sum(scores, lengths, fsa, leak=-1.0)
    with pytest.raises(
        ShapeError, match=r"distribution must have shape \(1,\), one value a state, got \(2,\)"
    ):
        st.leaky_full_sum(scores, lengths, fsa, distribution=torch.ones(2))
    with pytest.raises(
        DeviceError, match=r"distribution is on meta, the scores on cpu: pass distribution\.cpu\(\)"
    ):
        st.leaky_full_sum(scores, lengths, fsa, distribution=torch.ones(1, device="meta"))
    with pytest.raises(ArgumentError, match=r"distribution\[0\] = nan"):
        st.leaky_full_sum(scores, lengths, fsa, distribution=torch.tensor([torch.nan]))
