"""Random lattices with risks, as the operator takes them, and what brute force makes of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from seqtrain import reference
from seqtrain.fsa import Fsa, FsaBatch
from tests.ops.test_operators import tensors


class RiskBatch(NamedTuple):
    """Lattices, and risks (ΣA,), (ΣF,) of their arcs and final states."""

    graphs: FsaBatch
    risks: torch.Tensor
    final_risks: torch.Tensor

    def arguments(self, with_gradient: bool, policy: str = "raise") -> tuple[object, ...]:
        return (*tensors(self.graphs), self.risks, self.final_risks, with_gradient, policy, -1)

    def run(self, with_gradient: bool = False, policy: str = "raise") -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = torch.ops.seqtrain.lattice_risk(
            *self.arguments(with_gradient, policy)
        )
        return found


def random_lattice(random: np.random.Generator, states: int, arcs: int, dtype: torch.dtype) -> Fsa:
    """States in topological order, arcs sorted by source; dead ends, forbidden arcs and several finals occur."""
    pairs = (
        [sorted(random.choice(states, 2, replace=False).tolist()) for _ in range(arcs)] if states > 1 else []
    )
    chain = [[s, s + 1] for s in range(states - 1) if random.random() < 0.8]
    rows = sorted(pairs + chain)
    weights = random.normal(scale=3, size=len(rows))
    weights[random.random(len(rows)) < 0.05] = -np.inf
    finals = sorted({states - 1, *random.integers(0, states, 2).tolist()})
    final_weights = torch.from_numpy(random.normal(size=len(finals))).to(dtype)
    return Fsa(
        np.array([[*row, 0] for row in rows], dtype=np.int64).reshape(-1, 3),
        torch.from_numpy(weights).to(dtype),
        num_states=states,
        final=(finals, final_weights),
    )


def random_risks(
    seed: int, *, batch: int = 4, states: int = 7, arcs: int = 12, dtype: torch.dtype = torch.float64
) -> RiskBatch:
    random = np.random.default_rng(seed)
    sizes = [int(random.integers(1, states + 1)) for _ in range(batch)]
    graphs = FsaBatch.from_list([random_lattice(random, size, arcs, dtype) for size in sizes])
    return RiskBatch(
        graphs,
        torch.from_numpy(random.normal(scale=2, size=graphs.weights.shape[0])).to(dtype),
        torch.from_numpy(random.normal(scale=2, size=graphs.final_weights.shape[0])).to(dtype),
    )


def brute_force(lattice: Fsa, risks: np.ndarray, final_risks: np.ndarray) -> reference.ExpectedRisk:
    """Path by path, with derivatives of E = Σ p(π) r(π): of weights, Σ over π through a of p(π) (r(π) - E)."""
    paths = list(reference.enumerate_lattice_paths(lattice))
    by_arc, by_final = np.zeros((2, risks.size)), np.zeros((2, final_risks.size))
    if not paths:
        return reference.ExpectedRisk(0.0, -np.inf, *by_arc, *by_final)
    scores = np.array([score for score, _, _ in paths])
    total = float(np.logaddexp.reduce(scores))
    probabilities = np.exp(scores - total)
    risk_of = np.array([risks[list(arcs)].sum() + final_risks[end] for _, arcs, end in paths])
    expected = float(probabilities @ risk_of)
    for p, r, (_, arcs, end) in zip(probabilities, risk_of, paths, strict=True):
        by_arc[0, list(arcs)] += p * (r - expected)
        by_arc[1, list(arcs)] += p
        by_final[:, end] += (p * (r - expected), p)
    return reference.ExpectedRisk(expected, total, by_arc[0], by_arc[1], by_final[0], by_final[1])


def parts(batch: RiskBatch, b: int) -> tuple[Fsa, np.ndarray, np.ndarray]:
    """Lattice b with its risks."""
    graphs = batch.graphs
    arcs, finals = (slice(*o[b : b + 2].tolist()) for o in (graphs.arc_offsets, graphs.final_offsets))
    return (
        graphs[b],
        batch.risks[arcs].detach().double().numpy(),
        batch.final_risks[finals].detach().double().numpy(),
    )
