"""Random automata and scores for property tests."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

from seqtrain.fsa import Fsa

NUM_LABELS = 4

quick = settings(max_examples=60, deadline=None)
"""Machines under load make no promises about the time of one example."""

_log_weights = st.one_of(
    st.floats(-8.0, 8.0, width=32, allow_subnormal=False), st.just(-np.inf), st.just(0.0)
).map(lambda weight: weight + 0.0)


@st.composite
def automata(
    draw: st.DrawFn, *, dtype: torch.dtype = torch.float32, max_states: int = 5, max_arcs: int = 10
) -> Fsa:
    """Any automaton: loops, parallel arcs, dead ends, unreachable states, forbidden arcs, no finals."""
    states = draw(st.integers(1, max_states))
    state = st.integers(0, states - 1)
    arcs = draw(st.lists(st.tuples(state, state, st.integers(0, NUM_LABELS - 1)), max_size=max_arcs))
    weights = draw(st.lists(_log_weights, min_size=len(arcs), max_size=len(arcs)))
    final = draw(st.dictionaries(state, _log_weights, max_size=states))
    return Fsa(
        np.array(arcs, dtype=np.int64).reshape(-1, 3),
        torch.tensor(weights, dtype=dtype),
        num_states=states,
        start=draw(state),
        final=(list(final), torch.tensor(list(final.values()), dtype=dtype)),
    )


@st.composite
def score_tables(draw: st.DrawFn, *, max_frames: int = 4) -> np.ndarray:
    """(T, NUM_LABELS) float64, some of them -inf."""
    frames = draw(st.integers(0, max_frames))
    cells = st.one_of(st.floats(-10.0, 10.0), st.just(-np.inf))
    values = draw(st.lists(cells, min_size=frames * NUM_LABELS, max_size=frames * NUM_LABELS))
    return np.array(values, dtype=np.float64).reshape(frames, NUM_LABELS)
