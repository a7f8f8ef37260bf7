"""The second derivative of the full sum is the covariance of counts over paths, and never silently zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain import reference
from seqtrain.errors import DerivativeError
from seqtrain.fsa import Fsa, FsaBatch
from tests.fsa.strategies import quick
from tests.ops.exact import close, frames_of, trainable
from tests.ops.examples import (
    TOPOLOGIES,
    Batch,
    offsets_of,
    packed_rows,
    random_batch,
    random_ctc_batch,
    random_fsa,
    random_scores,
    random_topology,
)
from tests.ops.test_determinism import threads


def ergodic(seed: int, *, batch: int = 2, frames: int = 4, dtype: torch.dtype = torch.float64) -> Batch:
    """Three states, each of which leads to each."""
    random = np.random.default_rng(seed)
    arcs = [(p, q, q) for p in range(3) for q in range(3)]
    graphs = [
        Fsa(
            arcs,
            torch.tensor(random.normal(size=9), dtype=dtype),
            num_states=3,
            final=([0, 1, 2], torch.tensor(random.normal(size=3), dtype=dtype)),
        )
        for _ in range(batch)
    ]
    lengths = torch.from_numpy(random.integers(1, frames + 1, size=batch))
    return Batch(random_scores(random, batch, frames, 3, dtype=dtype), lengths, FsaBatch.from_list(graphs))


def example(name: str, seed: int, *, frames: int = 6) -> Batch:
    """A batch of one of TOPOLOGIES, or ergodic, in double precision."""
    if name == "ergodic":
        return ergodic(seed)
    return random_topology(name, seed, batch=2, frames=frames, dtype=torch.float64)


def enumerated_hessian(scores: np.ndarray, fsa: Fsa) -> np.ndarray:
    """Covariance of the counts of (frame, label), arc and final state, path by path."""
    paths = list(reference.enumerate_paths(scores, fsa))
    frames, labels = scores.shape
    rows = np.zeros((len(paths), frames * labels + len(fsa.weights) + len(fsa.final_weights)))
    finals = fsa.final_states.tolist()
    for row, path in zip(rows, paths, strict=True):
        for t, label in enumerate(path.labels):
            row[t * labels + label] += 1
        for arc in path.arcs:
            row[frames * labels + arc] += 1
        row[frames * labels + len(fsa.weights) + finals.index(path.states[-1])] += 1
    score = np.array([path.score for path in paths])
    probability = np.exp(score - np.logaddexp.reduce(score))
    mean = probability @ rows
    covariance: np.ndarray = rows.T @ (probability[:, None] * rows) - np.outer(mean, mean)
    return covariance


@pytest.mark.parametrize("name", [*TOPOLOGIES, "ergodic"])
def test_hessian_against_enumerated_paths(name: str) -> None:
    """All blocks, the mixed ones too; and it isn't zero."""
    scores, lengths, graphs = example(name, 1)
    for b, length in enumerate(lengths.tolist()):
        fsa = graphs[b]
        x = scores[b : b + 1, :length]
        expected = enumerated_hessian(frames_of(scores, b, length), fsa)

        def value(
            x: torch.Tensor,
            w: torch.Tensor,
            f: torch.Tensor,
            fsa: Fsa = fsa,
            length: int = length,
        ) -> torch.Tensor:
            graph = Fsa(fsa.arcs, w, num_states=fsa.num_states, start=fsa.start, final=(fsa.final_states, f))
            return st.full_sum(x, torch.tensor([length]), graph).sum()

        inputs = (x, fsa.weights, fsa.final_weights)
        blocks = torch.autograd.functional.hessian(value, inputs)  # type: ignore[no-untyped-call]  # of torch
        sizes = [tensor.numel() for tensor in inputs]
        found = torch.cat(
            [torch.cat([blocks[i][j].reshape(sizes[i], sizes[j]) for j in range(3)], dim=1) for i in range(3)]
        )
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(found, found.T, rtol=0, atol=1e-12)
        if name != "linear":  # which has one path alone
            assert found.abs().max() > 0.01


@pytest.mark.parametrize("name", [*TOPOLOGIES, "ergodic"])
def test_gradgradcheck(name: str) -> None:
    scores, lengths, graphs = example(name, 2)
    weights = graphs.weights.clone().requires_grad_()
    finals = graphs.final_weights.clone().requires_grad_()

    def value(x: torch.Tensor, w: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        return st.full_sum(x, lengths, graphs.with_weights(w, f))

    assert torch.autograd.gradgradcheck(value, (scores.requires_grad_(), weights, finals))


def test_gradgradcheck_of_a_shared_automaton() -> None:
    random = np.random.default_rng(3)
    fsa = random_fsa(random, states=4, arcs=10, labels=3, forbidden=0.0, dtype=torch.float64)
    lengths = torch.tensor([3, 2, 3])

    def value(x: torch.Tensor, w: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        graph = Fsa(fsa.arcs, w, num_states=fsa.num_states, start=fsa.start, final=(fsa.final_states, f))
        return st.full_sum(x, lengths, graph, on_infeasible="mask")

    scores = random_scores(random, 3, 3, 3, dtype=torch.float64).requires_grad_()
    inputs = (scores, fsa.weights.requires_grad_(), fsa.final_weights.requires_grad_())
    assert value(*inputs).abs().min() > 0
    assert torch.autograd.gradgradcheck(value, inputs)


@pytest.mark.parametrize("name", [*TOPOLOGIES, "ergodic"])
def test_derivative_of_posteriors(name: str) -> None:
    scores, lengths, graphs = example(name, 4)
    weights = graphs.weights.clone().requires_grad_()
    finals = graphs.final_weights.clone().requires_grad_()

    def value(x: torch.Tensor, w: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        return st.posteriors(x, lengths, graphs.with_weights(w, f))

    assert torch.autograd.gradcheck(value, (scores.requires_grad_(), weights, finals))


def products(
    scores: torch.Tensor, lengths: torch.Tensor, fsa: FsaBatch | Fsa, directions: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Slopes (B,), and the Hessian of the weighted sum of values times the directions."""
    leaf = scores.detach().clone().requires_grad_()
    graphs, weights, finals = trainable(fsa)
    value = st.full_sum(leaf, lengths, graphs, on_infeasible="inf")
    factor = torch.linspace(0.5, 2.0, len(lengths), dtype=value.dtype).requires_grad_()
    leaves = (leaf, weights, finals)
    gradients = torch.autograd.grad(value, leaves, factor, create_graph=True)
    total = sum(
        ((g * d.to(g.dtype)).sum().to(value.dtype) for g, d in zip(gradients, directions, strict=True)),
        torch.zeros((), dtype=value.dtype),
    )
    slope, *found = torch.autograd.grad(total, (factor, *leaves))
    return slope, tuple(found)


def assert_tangents_exact(
    scores: torch.Tensor, lengths: torch.Tensor, fsa: FsaBatch | Fsa, seed: int, *, rounding: float = 1e-11
) -> None:
    """Slope and products against the reference, each utterance with a weight of its own."""
    random = np.random.default_rng(seed)
    directions = tuple(
        random_scores(random, *tensor.shape, dtype=tensor.dtype, scale=1.0)
        for tensor in (scores, fsa.weights, fsa.final_weights)
    )
    slope, found = products(scores, lengths, fsa, directions)
    expected = [np.zeros(tensor.shape) for tensor in found]
    slopes = np.zeros(len(lengths))
    for b, length in enumerate(lengths.tolist()):
        arcs, finals = slice(None), slice(None)
        if isinstance(fsa, FsaBatch):
            arcs = slice(*fsa.arc_offsets[b : b + 2].tolist())
            finals = slice(*fsa.final_offsets[b : b + 2].tolist())
        exact = reference.full_sum_tangents(
            frames_of(scores, b, length),
            fsa[b] if isinstance(fsa, FsaBatch) else fsa,
            tangent_scores=frames_of(directions[0], b, length),
            tangent_weights=directions[1][arcs].double().numpy(),
            tangent_final_weights=directions[2][finals].double().numpy(),
        )
        factor = float(torch.linspace(0.5, 2.0, len(lengths), dtype=torch.float64)[b])
        slopes[b] = exact.slope
        expected[0][b, :length] = factor * exact.scores
        expected[1][arcs] += factor * exact.weights
        expected[2][finals] += factor * exact.final_weights
    # The slope of infeasible utterances is 0; the kernel works in double precision, results have the inputs' own.
    epsilon = torch.finfo(scores.dtype).eps
    double = scores.dtype == torch.float64
    close(
        slope,
        slopes,
        absolute=rounding if double else 2e-5,
        relative=max(rounding, 4 * torch.finfo(slope.dtype).eps),
    )
    for tensor, exact_tensor in zip(found, expected, strict=True):
        error = max(epsilon if tensor is found[0] else torch.finfo(tensor.dtype).eps, rounding)
        close(tensor, exact_tensor, absolute=rounding if double else 1e-6, relative=2 * error)


@quick
@given(
    seed=hs.integers(0, 2**32),
    acyclic=hs.booleans(),
    dtype=hs.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_random_batches(seed: int, acyclic: bool, dtype: torch.dtype) -> None:
    assert_tangents_exact(*random_batch(seed, acyclic=acyclic, dtype=dtype), seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_topologies(name: str, dtype: torch.dtype) -> None:
    assert_tangents_exact(*random_topology(name, 5, frames=60, dtype=dtype), 5)


def test_shared_automaton() -> None:
    scores, lengths, graphs = random_batch(6, batch=5, arcs=30, dtype=torch.float64)
    assert_tangents_exact(scores, lengths, graphs[0], 6)


@pytest.mark.parametrize("scale", [60.0, 1e4])
def test_scores_far_apart(scale: float) -> None:
    """Where probabilities leave the range of a float within a frame."""
    random = np.random.default_rng(7)
    scores, lengths, graphs = random_topology("hmm", 7, frames=40)
    assert_tangents_exact(random_scores(random, *scores.shape, scale=scale), lengths, graphs, 7)


def test_a_long_utterance_in_segments() -> None:
    """Beyond the budget of memory the forward scores are computed again, segment by segment."""
    fsa = FsaBatch.from_list([st.fsa.ctc(torch.randint(1, 8, (1, 1500)), torch.tensor([1500]))[0]])
    random = np.random.default_rng(8)
    scores = random_scores(random, 1, 1900, 8, dtype=torch.float64)
    # The reference's log scores reach 1e4 here, with steps of 2e-12, and tangents of a path the size of 100.
    assert_tangents_exact(scores, torch.tensor([1900]), fsa, 8, rounding=2e-8)


def test_packed_scores_are_like_padded_ones() -> None:
    scores, lengths, graphs = random_topology("hmm", 9)
    direction = torch.randn(scores.shape, generator=torch.Generator().manual_seed(9))
    padded = scores.requires_grad_()
    (gradient,) = torch.autograd.grad(st.full_sum(padded, lengths, graphs).sum(), padded, create_graph=True)
    (expected,) = torch.autograd.grad((gradient * direction).sum(), padded)
    rows = packed_rows(scores, lengths).detach().requires_grad_()
    packed = st.Packed(rows, offsets_of(lengths))
    (gradient,) = torch.autograd.grad(st.full_sum(packed, lengths, graphs).sum(), rows, create_graph=True)
    (found,) = torch.autograd.grad((gradient * packed_rows(direction, lengths)).sum(), rows)
    assert torch.equal(found, packed_rows(expected, lengths))


def test_infeasible_utterances_have_zero_rows() -> None:
    scores, lengths, graphs = random_topology("ctc", 10, dtype=torch.float64)
    lengths = lengths.clone()
    lengths[1] = 0
    directions = (
        torch.ones_like(scores),
        torch.ones_like(graphs.weights),
        torch.ones_like(graphs.final_weights),
    )
    slope, (to_scores, to_weights, _) = products(scores, lengths, graphs, directions)
    assert slope[1] == 0
    assert slope[0] > 0
    assert not to_scores[1].any()
    assert not to_weights[graphs.arc_offsets[1] : graphs.arc_offsets[2]].any()
    random = torch.Generator().manual_seed(10)
    varied = (torch.randn(scores.shape, generator=random, dtype=torch.float64), *directions[1:])
    assert products(scores, lengths, graphs, varied)[1][0][0].any()


def test_a_constant_in_the_scores_of_a_frame_has_no_second_derivative() -> None:
    """It moves all paths alike, so its slope is the number of frames, and the posteriors stay."""
    scores, lengths, graphs = random_topology("hmm", 11, dtype=torch.float64)
    directions = (
        torch.ones_like(scores),
        torch.zeros_like(graphs.weights),
        torch.zeros_like(graphs.final_weights),
    )
    slope, (to_scores, *_) = products(scores, lengths, graphs, directions)
    torch.testing.assert_close(slope, lengths.double(), rtol=1e-13, atol=0)
    assert to_scores.abs().max() < 1e-12


def test_rows_sum_to_zero() -> None:
    """Posteriors of a frame sum to one, whatever the scores."""
    scores, lengths, graphs = random_topology("hmm", 12)
    directions = tuple(
        torch.randn(tensor.shape, generator=torch.Generator().manual_seed(12))
        for tensor in (scores, graphs.weights, graphs.final_weights)
    )
    _, (to_scores, *_) = products(scores, lengths, graphs, directions)
    assert to_scores.abs().max() > 0.01
    assert to_scores.sum(dim=2).abs().max() < 1e-6


@pytest.mark.parametrize("shared", [False, True])
def test_the_same_bits_for_any_number_of_threads(shared: bool) -> None:
    scores, lengths, graphs = random_topology("hmm", 13, batch=9, frames=150)
    fsa = graphs[0] if shared else graphs
    lengths = torch.full_like(lengths, 150)
    directions = tuple(
        torch.randn(tensor.shape, generator=torch.Generator().manual_seed(13))
        for tensor in (scores, fsa.weights, fsa.final_weights)
    )
    results = []
    for count in (1, 2, 3, 7, 1):
        with threads(count):
            slope, found = products(scores, lengths, fsa, directions)
            results.append([slope, *found])
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_gradgradcheck_of_ctc(normalize: bool, packed: bool) -> None:
    scores, targets, lengths, target_lengths = random_ctc_batch(
        3, batch=3, frames=6, labels=4, targets=2, dtype=torch.float64, scale=1.0
    )
    values = packed_rows(scores, lengths) if packed else scores

    def loss(x: torch.Tensor) -> torch.Tensor:
        given = st.Packed(x, offsets_of(lengths)) if packed else x
        return st.ctc_loss(given, targets, lengths, target_lengths, normalize=normalize)

    assert torch.autograd.gradgradcheck(loss, values.detach().requires_grad_())


@pytest.mark.parametrize("normalize", [False, True])
def test_ctc_is_like_the_full_sum_over_its_automata(normalize: bool) -> None:
    """In single precision, with utterances that have no path and frames past the ends."""
    scores, targets, lengths, target_lengths = random_ctc_batch(14)
    lengths = lengths.clone()
    lengths[0] = 1
    graphs = st.fsa.ctc(targets, target_lengths)

    def fused(x: torch.Tensor) -> torch.Tensor:
        return st.ctc_loss(x, targets, lengths, target_lengths, normalize=normalize, on_infeasible="mask")

    def general(x: torch.Tensor) -> torch.Tensor:
        x = x.double().log_softmax(-1) if normalize else x.double()
        return -st.full_sum(x, lengths, graphs, on_infeasible="mask")

    found = []
    for function in (fused, general):
        leaf = scores.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(function(leaf).sum(), leaf, create_graph=True)
        penalty = gradient.square().sum()
        found.append(torch.autograd.grad(penalty, leaf)[0])
    assert not found[0][0].any()
    assert found[0].abs().max() > 0.01
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_sums_over_a_shared_automaton_have_one_too_unless_they_leak() -> None:
    """The kernel that takes several utterances side by side, against one utterance at a time."""
    scores, lengths, graphs = random_batch(15, batch=4, arcs=30, dtype=torch.float64)
    fsa = graphs[0]
    found = []
    for parts in ([slice(0, 4)], [slice(b, b + 1) for b in range(4)]):
        leaf = scores.detach().clone().requires_grad_()
        value = torch.cat([st.full_sum(leaf[p], lengths[p], fsa, on_infeasible="mask") for p in parts])
        (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), leaf)[0])
    assert found[0].abs().max() > 0.01
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)

    leaf = scores.detach().requires_grad_()
    value = st.leaky_full_sum(leaf, lengths, fsa, leak=0.1, on_infeasible="mask")
    (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
    with pytest.raises(DerivativeError, match="no second derivative"):
        torch.autograd.grad(gradient.square().sum(), leaf)
