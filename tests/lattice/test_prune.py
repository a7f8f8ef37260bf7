"""Pruning: by posterior and by the best path."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqtrain import lattice as lt
from seqtrain.errors import ArgumentError, DtypeError
from tests.lattice.examples import enumerate_lattice, random_acyclic, random_lattice

SEEDS = range(40)


def names(lattice: lt.Lattice) -> dict[tuple[int, ...], float]:
    assert lattice.graph_arcs is not None
    arcs = lattice.graph_arcs.tolist()
    return {tuple(arcs[a] for a in path.arcs): path.score for path in enumerate_lattice(lattice)}


def test_by_posterior() -> None:
    lattice = random_lattice(SEEDS)
    pruned = lt.prune(lattice, posterior=0.2)
    pruned.check()
    posteriors = lt.arc_posteriors(lattice)
    smaller = 0
    for b, (one, less) in enumerate(zip(lattice, pruned, strict=True)):
        own = slice(*lattice.arc_offsets[b : b + 2].tolist())
        keep = {int(a) for a, p in zip(one.graph_arcs, posteriors[own], strict=True) if p >= 0.2}
        every = names(one)
        if every:
            best = max(every, key=every.__getitem__)
            keep |= set(best)
        expected = {path: score for path, score in every.items() if set(path) <= keep}
        found = names(less)
        assert found.keys() == expected.keys()
        assert all(found[path] == pytest.approx(expected[path], abs=1e-12) for path in found)
        smaller += len(found) < len(every)
    assert smaller > 10


def test_by_the_best_path() -> None:
    lattice = random_lattice(SEEDS)
    pruned = lt.prune(lattice, beam=1.0)
    smaller = 0
    for one, less in zip(lattice, pruned, strict=True):
        every, found = names(one), names(less)
        best = max(every.values(), default=-np.inf)
        near = {path: score for path, score in every.items() if score >= best - 1.0}
        assert near.keys() <= found.keys() <= every.keys()
        # Each arc that is left lies on a path that is near enough.
        assert {a for path in found for a in path} == {a for path in near for a in path}
        smaller += len(found) < len(every)
    assert smaller > 10


def test_nothing_below_the_threshold_changes_nothing() -> None:
    lattice = random_lattice(SEEDS)
    whole = lt.prune(lattice, posterior=0.0, beam=np.inf)
    np.testing.assert_allclose(lt.total_score(whole), lt.total_score(lattice), atol=1e-12)
    alone = lt.prune(lattice, posterior=1.0)
    np.testing.assert_allclose(lt.best_path(alone).scores(), lt.best_path(lattice).scores(), atol=1e-12)
    assert lt.prune(lattice, posterior=1.0).truncated.tolist() == lattice.truncated.tolist()


def test_gradients_flow_through() -> None:
    lattice = random_lattice(range(6))
    weights = lattice.weights.clone().requires_grad_()
    pruned = lt.prune(lattice.with_weights(weights), posterior=0.1)
    value = lt.total_score(pruned)
    value[value > -torch.inf].sum().backward()
    np.testing.assert_allclose(
        weights.grad.sum(), lt.arc_posteriors(pruned.with_weights(pruned.weights.detach())).sum(), atol=1e-9
    )


def test_bad_input() -> None:
    lattice = random_lattice(range(2))
    with pytest.raises(ArgumentError, match="pass posterior, beam, or both"):
        lt.prune(lattice)
    with pytest.raises(ArgumentError, match="posterior must lie in 0 … 1, got 2"):
        lt.prune(lattice, posterior=2)
    with pytest.raises(ArgumentError, match="beam must be at least 0, got -1"):
        lt.prune(lattice, beam=-1)
    with pytest.raises(DtypeError, match="must be a Lattice, got Fsa"):
        lt.prune(random_acyclic(0), beam=1)
