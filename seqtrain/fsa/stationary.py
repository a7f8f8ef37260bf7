"""Where a walk over an automaton is, on average."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from seqtrain.capture import is_capturing, refused
from seqtrain.errors import FsaError
from seqtrain.fsa.automaton import Fsa

__all__ = ["stationary_distribution"]


def stationary_distribution(fsa: Fsa, *, steps: int = 100) -> torch.Tensor:
    """Share of time that a walk from the start spends in each state, by the arcs' weights alone.

    p(0) is 1 at the start; p(n+1, q) = Σ over arcs p → q: p(n, p) exp(w) over its own sum; the result is the mean of
    p(1) … p(steps). It is what a leaky sum leaks to (D. Povey et al., "Purely sequence-trained neural networks for ASR
    based on lattice-free MMI", Interspeech 2016, section 2.5). A mean over steps also suits automata that walk in
    cycles, which have no limit.

    Returns:
        (S,) float64, sums to 1. Kept with the automaton until its weights change. In a capture of a CUDA graph, where
        weights on the device can't be looked at, the latest one.

    Raises:
        FsaError: the walk ends, because no arc leaves where it is.
        CudaError: in a capture, where there is none yet.
    """
    kept = fsa.derived.get("stationary_distribution")
    if is_capturing(fsa.weights.device):
        if kept is None or kept[0] != steps:
            raise refused(
                f"a stationary distribution of weights on {fsa.weights.device} can't be found in a capture in a CUDA "
                "graph: make one call before the capture"
            )
        latest: torch.Tensor = kept[2]
        return latest
    weights = fsa.weights.detach().cpu().double().numpy()
    if kept is not None and kept[0] == steps and np.array_equal(kept[1], weights):
        distribution: torch.Tensor = kept[2]
        return distribution
    source, destination = fsa.arcs[:, 0].numpy(), fsa.arcs[:, 1].numpy()
    factor = np.exp(weights - weights.max(initial=-np.inf)) if weights.size else weights
    now: NDArray[np.float64] = np.zeros(fsa.num_states)
    now[fsa.start] = 1.0
    mean = np.zeros(fsa.num_states)
    for step in range(steps):
        moved = now[source] * factor
        now = np.bincount(destination, weights=moved, minlength=fsa.num_states).astype(np.float64)
        total = now.sum()
        if not total > 0.0:
            raise FsaError(
                f"no walk of {step + 1} arcs leaves state {fsa.start}, the start: a leaky sum needs an automaton with "
                "cycles",
                state=fsa.start,
            )
        now /= total
        mean += now / steps
    distribution = torch.from_numpy(mean / mean.sum())
    fsa.derived["stationary_distribution"] = (steps, weights.copy(), distribution)
    return distribution
