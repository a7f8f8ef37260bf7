"""Random lattices, and what enumeration of their paths says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.lattice import Lattice


class LatticePath(NamedTuple):
    """One path of a lattice of one utterance."""

    score: float
    arcs: tuple[int, ...]
    final: int


def enumerate_lattice(lattice: Lattice) -> Iterator[LatticePath]:
    """Every path with a score above -inf of a lattice of one utterance."""
    if bool(lattice.empty[0]):
        return
    arcs = lattice.arcs.tolist()
    weights = lattice.weights.detach().double().tolist()
    final = dict(
        zip(lattice.final_states.tolist(), lattice.final_weights.detach().double().tolist(), strict=True)
    )
    leaving: dict[int, list[int]] = {}
    for a, (p, _, _) in enumerate(arcs):
        leaving.setdefault(p, []).append(a)
    stack: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]
    while stack:
        state, score, path = stack.pop()
        if final.get(state, -np.inf) > -np.inf:
            yield LatticePath(score + final[state], path, state)
        for a in leaving.get(state, []):
            if weights[a] > -np.inf:
                stack.append((arcs[a][1], score + weights[a], (*path, a)))


def random_acyclic(
    seed: int, *, states: int = 7, arcs: int = 14, labels: int = 4, scale: float = 1.0, forbidden: float = 0.1
) -> Fsa:
    """An acyclic automaton with parallel arcs, dead ends and forbidden arcs; states in no order."""
    random = np.random.default_rng(seed)
    ends = np.sort(np.stack([random.permutation(states)[:2] for _ in range(arcs)]).astype(np.int64), axis=1)
    number = np.concatenate(([0], 1 + random.permutation(states - 1)))
    rows = np.column_stack([number[ends], random.integers(0, labels, arcs)])
    weights = random.normal(0, scale, arcs)
    weights[random.random(arcs) < forbidden] = -np.inf
    final = {int(number[states - 1]): float(random.normal())}
    if random.random() < 0.5:
        final[int(number[states // 2])] = float(random.normal())
    return Fsa(rows, weights, num_states=states, final=final)


def random_lattice(seeds: range, *, dtype: torch.dtype = torch.float64) -> Lattice:
    """A batch of lattices, one a seed."""
    batch = FsaBatch.from_list([random_acyclic(seed) for seed in seeds])
    return Lattice.from_fsa(batch.with_weights(batch.weights.to(dtype), batch.final_weights.to(dtype)))
