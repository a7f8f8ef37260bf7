"""The same input gives the same bits: run after run, and for any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

import seqtrain as st
from seqtrain.fsa import Fsa
from tests.ops.examples import offsets_of, packed_rows, random_ctc_batch, random_topology

Computation = Callable[[], list[torch.Tensor]]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch's number of threads, and the old one afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ctc(normalize: bool, packed: bool) -> Computation:
    """Enough work that threads are started for it."""
    scores, targets, lengths, target_lengths = random_ctc_batch(
        1, batch=9, frames=150, labels=130, targets=40
    )
    offsets = offsets_of(lengths)
    values = packed_rows(scores, lengths) if packed else scores

    def compute() -> list[torch.Tensor]:
        leaf = values.detach().requires_grad_()
        given = st.Packed(leaf, offsets) if packed else leaf
        loss = st.ctc_loss(given, targets, lengths, target_lengths, normalize=normalize)
        return [loss.detach(), *torch.autograd.grad(loss.sum(), leaf)]

    return compute


def automata(shared: bool) -> Computation:
    """Everything that the general operators compute, gradients to weights included."""
    scores, lengths, graphs = random_topology("hmm", 2, batch=9, frames=200)
    if shared:
        one = graphs[0]
        lengths = lengths.clamp(min=int(one.min_length()))

    def compute() -> list[torch.Tensor]:
        leaf = scores.detach().requires_grad_()
        weights = (one if shared else graphs).weights.clone().requires_grad_()
        given = (
            Fsa(one.arcs, weights, num_states=one.num_states, final=(one.final_states, one.final_weights))
            if shared
            else graphs.with_weights(weights)
        )
        value = st.full_sum(leaf, lengths, given)
        found = [value.detach(), *torch.autograd.grad(value.sum(), (leaf, weights))]
        return [*found, st.posteriors(scores, lengths, given), *st.best_path(scores, lengths, given)[:4]]

    return compute


COMPUTATIONS = {
    "ctc": ctc(normalize=False, packed=False),
    "normalized ctc": ctc(normalize=True, packed=False),
    "packed ctc": ctc(normalize=True, packed=True),
    "automata": automata(shared=False),
    "shared automaton": automata(shared=True),
}


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_any_number_of_threads(name: str) -> None:
    results = []
    for count in (1, 2, 3, 7):
        with threads(count):
            results.append(COMPUTATIONS[name]())
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_run_after_run(name: str) -> None:
    """Also where memory that was used for something else lies in between."""
    first = COMPUTATIONS[name]()
    for _ in range(4):
        scribble = [torch.full((size,), torch.nan) for size in (1000, 20_000, 1_000_000)]
        del scribble
        assert all(torch.equal(a, b) for a, b in zip(first, COMPUTATIONS[name](), strict=True))


def test_the_floating_point_mode_of_the_caller_is_left_alone() -> None:
    """Kernels flush subnormal numbers; torch around them doesn't."""
    tiny = torch.tensor([1e-310], dtype=torch.float64)
    COMPUTATIONS["ctc"]()
    COMPUTATIONS["automata"]()
    assert (tiny * 0.5).item() == 1e-310 * 0.5
    assert (tiny * 0.5).item() > 0.0
