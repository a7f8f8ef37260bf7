"""The k best paths, the k best sequences, and samples, against enumeration."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqtrain import lattice as lt
from seqtrain.errors import ArgumentError, FsaError, ShapeError
from seqtrain.lattice import Lattice
from seqtrain.lattice.total_score import operands
from tests.lattice.examples import enumerate_lattice, random_lattice

SEEDS = range(50)


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_the_k_best_are_the_true_k_best(count: int) -> None:
    lattice = random_lattice(SEEDS)
    paths = lt.nbest(lattice, count)
    scores = paths.scores()
    for b, one in enumerate(lattice):
        expected = sorted((path.score for path in enumerate_lattice(one)), reverse=True)
        own = slice(*paths.path_offsets[b : b + 2].tolist())
        np.testing.assert_allclose(scores[own].numpy(), expected[:count], atol=1e-9)
        names = [tuple(paths.arcs_of(n).tolist()) for n in range(own.start, own.stop)]
        assert len(set(names)) == len(names)
    assert torch.equal(paths.utterance, torch.repeat_interleave(paths.counts))


def test_paths_follow_each_other_and_end() -> None:
    lattice = random_lattice(SEEDS)
    paths = lt.nbest(lattice, 20)
    assert len(paths) > 100
    for n, b in enumerate(paths.utterance.tolist()):
        arcs = lattice.arcs[paths.arcs_of(n)].tolist()
        states = [0, *(q for _, q, _ in arcs)]
        assert [p for p, _, _ in arcs] == states[:-1]
        assert int(lattice.final_states[paths.finals[n]]) == states[-1]
        assert int(lattice.final_offsets[b]) <= int(paths.finals[n]) < int(lattice.final_offsets[b + 1])


@pytest.mark.parametrize("count", [1, 4, 1000])
@pytest.mark.parametrize("kind", ["labels", "tokens"])
def test_the_k_best_sequences(count: int, kind: str) -> None:
    lattice = random_lattice(SEEDS)
    random = torch.Generator().manual_seed(4)
    tokens = torch.randint(-1, 2, (lattice.arcs.shape[0],), generator=random)
    if kind == "labels":
        tokens = lattice.arcs[:, 2].to(torch.int64)
    paths = lt.nbest(lattice, count, unique="labels" if kind == "labels" else tokens)
    scores, found = paths.scores(), paths.tokens(tokens)
    merged = 0
    for b, one in enumerate(lattice):
        first = int(lattice.arc_offsets[b])
        best: dict[tuple[int, ...], float] = {}
        every = list(enumerate_lattice(one))
        for path in every:
            name = tuple(t for t in tokens[[a + first for a in path.arcs]].tolist() if t >= 0)
            best[name] = max(best.get(name, -np.inf), path.score)
        merged += len(best) < len(every)
        own = slice(*paths.path_offsets[b : b + 2].tolist())
        expected = sorted(best.values(), reverse=True)[:count]
        np.testing.assert_allclose(scores[own].numpy(), expected, atol=1e-9)
        names = [tuple(tokens_of) for tokens_of in found[own]]
        assert len(set(names)) == len(names)
        for name, score in zip(names, scores[own].tolist(), strict=True):
            assert score == pytest.approx(best[name], abs=1e-9)
    assert merged > 10


def test_scores_have_parts_and_gradients() -> None:
    lattice = random_lattice(range(10))
    weights = lattice.weights.clone().requires_grad_()
    paths = lt.nbest(lattice.with_weights(weights), 2)
    scores = paths.scores()
    np.testing.assert_allclose(paths.graph_scores() + paths.acoustic_scores(), scores.detach(), atol=1e-12)
    scores.sum().backward()
    counts = np.bincount(paths.arcs.numpy(), minlength=weights.shape[0])
    np.testing.assert_array_equal(weights.grad.numpy(), counts)


def test_many_more_paths_than_arcs() -> None:
    # 12 steps of 3 parallel arcs: half a million paths, most of equal score.
    rows = [[s, s + 1, label] for s in range(12) for label in range(3)]
    lattice = Lattice.from_arcs(rows, np.tile([0.0, -1.0, -1.0], 12))
    paths = lt.nbest(lattice, 2000)
    assert len({tuple(path) for path in paths.labels()}) == 2000
    expected = sorted((-sum(c > 0 for c in x) for x in np.ndindex(*[3] * 7)), reverse=True)[:1]
    scores = paths.scores().tolist()
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == expected[0] == 0
    assert [scores.count(-float(k)) for k in range(3)] == [1, 24, 264]
    again = lt.nbest(lattice, 2000)
    assert torch.equal(again.arcs, paths.arcs)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_samples_have_the_lattices_distribution(seed: int) -> None:
    lattice = random_lattice(range(8))
    drawn = 20000
    paths = lt.sample_paths(lattice, drawn, seed=seed)
    tested = 0
    for b, one in enumerate(lattice):
        every = list(enumerate_lattice(one))
        assert int(paths.counts[b]) == (drawn if every else 0)
        if len(every) < 2:
            continue
        first = int(lattice.arc_offsets[b])
        place = {tuple(a + first for a in path.arcs): i for i, path in enumerate(every)}
        counts = np.zeros(len(every))
        for n in range(*paths.path_offsets[b : b + 2].tolist()):
            counts[place[tuple(paths.arcs_of(n).tolist())]] += 1
        scores = np.array([path.score for path in every])
        expected = drawn * np.exp(scores - np.logaddexp.reduce(scores))
        usual = expected >= 5  # the rule of thumb for the chi-square distribution to hold
        chi_square = float((((counts - expected) ** 2)[usual] / expected[usual]).sum())
        freedom = int(usual.sum())
        # Five standard deviations of a chi-square variable: mean k, variance 2k.
        assert chi_square < freedom + 5 * np.sqrt(2 * freedom)
        tested += 1
    assert tested >= 4


def test_seeds() -> None:
    lattice = random_lattice(range(8))
    one = lt.sample_paths(lattice, 50, seed=3)
    assert torch.equal(lt.sample_paths(lattice, 50, seed=3).arcs, one.arcs)
    assert not torch.equal(lt.sample_paths(lattice, 50, seed=4).arcs, one.arcs)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    pair = [lt.sample_paths(lattice, 50, generator=g).arcs for g in generators]
    assert torch.equal(*pair)
    fewer = lt.sample_paths(lattice, 20, seed=3)
    assert torch.equal(fewer.arcs_of(7), one.arcs_of(7))


def test_same_bits_for_any_number_of_threads() -> None:
    lattice = random_lattice(range(400))
    results = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        results.append(
            [lt.nbest(lattice, 9).arcs, lt.nbest(lattice, 9, unique="labels").arcs,
             lt.sample_paths(lattice, 9, seed=1).arcs]
        )  # fmt: skip
    torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.torch2  # torch.library.opcheck
@pytest.mark.parametrize(
    "name", ["lattice_best_paths", "lattice_sample", "lattice_best_scores", "lattice_trim"]
)
def test_operators(name: str) -> None:
    lattice = random_lattice(range(4))
    more = {
        "lattice_best_paths": (5, lattice.arcs[:, 2]),
        "lattice_sample": (5, 1),
        "lattice_best_scores": (),
        "lattice_trim": (lattice.weights > -0.5, lattice.final_weights > -9.0),
    }[name]
    operator = getattr(torch.ops.seqtrain, name).default
    torch.library.opcheck(
        operator, (*operands(lattice), *more), test_utils=("test_schema", "test_faketensor")
    )


def test_bad_input() -> None:
    lattice = random_lattice(range(3))
    with pytest.raises(ArgumentError, match="count must be at least 1, got 0"):
        lt.nbest(lattice, 0)
    with pytest.raises(ArgumentError, match="count must be at least 1, got -1"):
        lt.sample_paths(lattice, -1, seed=0)
    with pytest.raises(
        ArgumentError, match="unique must be 'labels', 'aux', a tensor of tokens or None, got 'x'"
    ):
        lt.nbest(lattice, 1, unique="x")
    with pytest.raises(ArgumentError, match="no auxiliary labels: pass aux to intersect"):
        lt.nbest(lattice, 1, unique="aux")
    with pytest.raises(ShapeError, match="unique must be integers, one for each of the 35 arcs"):
        lt.nbest(lattice, 1, unique=torch.zeros(3))
    with pytest.raises(ArgumentError, match="seed and generator exclude each other"):
        lt.sample_paths(lattice, 1, seed=0, generator=torch.Generator())
    with pytest.raises(ArgumentError, match="seed must lie in"):
        lt.sample_paths(lattice, 1, seed=-1)
    weights = lattice.weights.clone()
    weights[-1] = torch.inf
    broken = Lattice._from_checked(lattice._parts() | {"weights": weights})
    with pytest.raises(FsaError, match="weights of lattice 2 hold"):
        lt.nbest(broken, 1)
