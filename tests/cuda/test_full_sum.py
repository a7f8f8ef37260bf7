"""The full sum's CUDA kernels on the emulated block: against the reference, and bit for bit in any order of threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain.errors import DerivativeError, FsaError, InfeasibleError, LabelError, NonFiniteScoresError
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.infeasible import NOT_HERE
from seqtrain.ops.full_sum import full_sum as full_sum_op
from seqtrain.scores import Packed
from tests.cuda.emulation import ORDERS, on_emulated_cuda
from tests.fsa.strategies import quick
from tests.ops.exact import assert_full_sum_exact, assert_posteriors_exact, trainable
from tests.ops.examples import (
    DTYPES,
    TOPOLOGIES,
    Batch,
    offsets_of,
    packed_rows,
    random_batch,
    random_fsa,
    random_scores,
    random_topology,
)
from tests.ops.gradient import scores_gradient


def value_and_gradients(batch: Batch) -> list[torch.Tensor]:
    """Value, and its gradients to scores, arc weights and final weights."""
    leaf = batch.scores.detach().requires_grad_()
    graphs, weights, final_weights = trainable(batch.automata)
    value = st.full_sum(leaf, batch.lengths, graphs, on_infeasible="mask")
    return [value.detach(), *torch.autograd.grad(value.sum(), (leaf, weights, final_weights))]


@quick
@given(seed=hs.integers(0, 2**32), acyclic=hs.booleans(), dtype=hs.sampled_from(DTYPES))
def test_random_batches(seed: int, acyclic: bool, dtype: torch.dtype) -> None:
    with on_emulated_cuda("shuffled") as cuda:
        assert_full_sum_exact(*random_batch(seed, acyclic=acyclic, dtype=dtype))
    assert b"full_sum_sweep_float" in cuda.launched[1][0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_topologies(name: str, dtype: torch.dtype) -> None:
    with on_emulated_cuda("descending"):
        assert_full_sum_exact(*random_topology(name, 3, dtype=dtype))


@pytest.mark.parametrize("states", [1, 16, 17, 70])
def test_sizes_around_the_width_of_a_slice(states: int) -> None:
    batch = random_batch(states, states=states, arcs=6 * states, labels=2 * states + 1, frames=12, batch=3)
    with on_emulated_cuda():
        assert_full_sum_exact(*batch)


@pytest.mark.parametrize("frames", [0, 1, 2, 3])
def test_the_halves_of_short_utterances(frames: int) -> None:
    scores, _, automata = random_batch(frames, batch=6, frames=3)
    with on_emulated_cuda("descending"):
        assert_full_sum_exact(scores, torch.full((6,), frames), automata)


@pytest.mark.parametrize("scale", [0.0, 12.0, 60.0, 3e4])
def test_flat_peaky_and_hostile_scores(scale: float) -> None:
    with on_emulated_cuda():
        assert_full_sum_exact(*random_batch(5, frames=12, scale=scale))


def test_weights_beyond_the_range_of_float() -> None:
    arcs = [[0, 1, 0], [0, 1, 1], [1, 1, 2]]
    with on_emulated_cuda():
        for weights in ([300.0, -300.0, 0.0], [-300.0, -300.0, -300.0], [250.0, 250.0, 250.0]):
            fsa = FsaBatch.from_list([Fsa(arcs, torch.tensor(weights))])
            assert_full_sum_exact(100 * torch.randn(1, 6, 3), torch.tensor([6]), fsa)


def test_mass_spread_over_many_states_and_then_gathered() -> None:
    """A frame's largest product is far below the utterance's sum where hundreds of states share it."""
    random = torch.Generator().manual_seed(1)
    many = range(2, 302)
    arcs = [[0, 1, 1], [0, 1, 2], *([1, s, s % 3] for s in many), *([s, 302, 0] for s in many)]
    arcs += [[302, 303, 1], [302, 303, 2]]
    fsa = FsaBatch.from_list([Fsa(arcs, torch.zeros(len(arcs)), final={303: 0.0})])
    with on_emulated_cuda():
        assert_full_sum_exact(torch.randn(1, 4, 3, generator=random), torch.tensor([4]), fsa)


def test_an_automaton_that_all_share() -> None:
    batch = random_batch(13, batch=5)
    flat = FsaBatch.from_list([batch.automata[0]])
    automata = (
        flat.arcs, flat.weights, flat.arc_offsets, flat.final_states, flat.final_weights, flat.final_offsets,
        flat.starts, flat.num_states,
    )  # fmt: skip
    arguments = (batch.scores, None, batch.lengths, *automata, None, None, True, True, "inf", NOT_HERE)
    expected = full_sum_op(*arguments)
    with on_emulated_cuda():
        found = full_sum_op(*arguments)
    for name, a, b in zip(
        ("value", "occupancies", "columns", "arcs", "finals", "status"), found, expected, strict=True
    ):
        if name == "occupancies":
            for utterance, length in enumerate(batch.lengths.tolist()):
                if expected[-1][utterance] == 0:
                    torch.testing.assert_close(
                        a[utterance, :length], b[utterance, :length], rtol=1e-5, atol=1e-6
                    )
        else:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_states_that_do_not_fit_into_shared_memory_stand_in_global_memory() -> None:
    batch = random_batch(7)
    with on_emulated_cuda() as shared:
        expected = value_and_gradients(batch)
    with on_emulated_cuda(largest_shared=256) as small:
        found = value_and_gradients(batch)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert max(bytes_ for *_, bytes_ in small.launched) == 256 < max(bytes_ for *_, bytes_ in shared.launched)


def test_every_order_of_threads_leaves_the_same_bits() -> None:
    batch = random_batch(11, states=80, arcs=400)
    found = []
    for order in ORDERS:
        with on_emulated_cuda(order):
            found.append(value_and_gradients(batch))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_missing_barrier_is_caught() -> None:
    batch = random_batch(11, states=80, arcs=400)
    found = []
    for order in ORDERS:
        with on_emulated_cuda(order, plant="barrier"):
            found.append(st.full_sum(*batch, on_infeasible="inf"))
    assert not all(torch.equal(found[0], other) for other in found[1:])


def test_packed_scores() -> None:
    scores, lengths, automata = random_batch(13)
    with on_emulated_cuda():
        value, expected = scores_gradient(
            lambda x: st.full_sum(x, lengths, automata, on_infeasible="mask"), scores
        )
        rows = packed_rows(scores, lengths)
        packed, found = scores_gradient(
            lambda x: st.full_sum(Packed(x, offsets_of(lengths)), lengths, automata, on_infeasible="mask"),
            rows,
        )
    assert torch.equal(packed, value)
    assert torch.equal(found, packed_rows(expected, lengths))


def test_the_gradient_in_place_of_the_scores() -> None:
    scores, lengths, automata = random_batch(17)
    with on_emulated_cuda():
        _, expected = scores_gradient(
            lambda x: st.full_sum(x, lengths, automata, on_infeasible="mask"), scores
        )
        memory = scores.transpose(0, 2).contiguous().transpose(0, 2)
        leaf = memory.detach().requires_grad_()
        st.full_sum(leaf, lengths, automata, on_infeasible="mask", gradient_out=memory).sum().backward()
    assert torch.equal(memory, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_posteriors(dtype: torch.dtype) -> None:
    with on_emulated_cuda("shuffled"):
        assert_posteriors_exact(*random_batch(19, dtype=dtype))


def test_compact_posteriors() -> None:
    scores, lengths, automata = random_topology("hmm", 5)
    expected = st.compact_posteriors(scores, lengths, automata)
    with on_emulated_cuda():
        found = st.compact_posteriors(scores, lengths, automata)
    assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.value, expected.value, rtol=1e-6, atol=0)
    for b, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(
            found.occupancies[b, :length], expected.occupancies[b, :length], rtol=1e-5, atol=1e-6
        )


def test_the_number_of_launches_does_not_depend_on_the_frames() -> None:
    for frames in (4, 40):
        with on_emulated_cuda() as cuda:
            value_and_gradients(random_batch(3, frames=frames))
        assert len(cuda.launched) == 6


def test_a_gradient_that_may_be_differentiated() -> None:
    batch = random_topology("hmm", 7)
    leaf = batch.scores.detach().requires_grad_()
    with on_emulated_cuda():
        (once,) = torch.autograd.grad(st.full_sum(leaf, *batch[1:]).sum(), leaf, create_graph=True)
        _, expected = scores_gradient(lambda x: st.full_sum(x, *batch[1:]), batch.scores)
        assert torch.equal(once.detach(), expected)
        with pytest.raises(DerivativeError, match=r"for the CPU alone.*pass scores\.cpu\(\)"):
            once.square().sum().backward()


def test_errors_are_those_of_the_cpu() -> None:
    scores, lengths, automata = random_topology("hmm", 9)
    with on_emulated_cuda():
        bad = scores.clone()
        bad[2, 5] = float("nan")
        with pytest.raises(NonFiniteScoresError, match=r"utterance 2 hold NaN.* at frame 5"):
            st.full_sum(bad, lengths, automata)
        with pytest.raises(InfeasibleError, match="utterance 0: 0 frames given"):
            st.full_sum(scores, torch.zeros_like(lengths), automata)
        with pytest.raises(LabelError, match="arc 0 of automaton 0 has label 4, but scores have") as caught:
            st.full_sum(
                scores[:, :, :0].new_zeros(3, 20, 1),
                lengths,
                FsaBatch.from_list([Fsa([[0, 1, 4]], [0.0])] * 3),
            )
        assert caught.value.label == 4
        automata.weights[1] = float("nan")  # as an optimizer may
        with pytest.raises(FsaError, match=r"weight of arc 1 of automaton 0 is nan"):
            st.full_sum(scores, lengths, automata)


def test_utterances_without_a_path_are_masked() -> None:
    scores, lengths, automata = random_topology("hmm", 11)
    scores[1] = float("-inf")
    with on_emulated_cuda():
        assert_full_sum_exact(scores, lengths, automata)


def test_no_utterances() -> None:
    with on_emulated_cuda() as cuda:
        empty = FsaBatch.from_list([])
        assert st.full_sum(torch.zeros(0, 3, 4), torch.zeros(0, dtype=torch.int64), empty).shape == (0,)
    assert cuda.launched == []


def test_a_large_automaton() -> None:
    """More states than threads; more columns than a block has threads."""
    fsa = FsaBatch.from_list([random_fsa(np.random.default_rng(1), states=700, arcs=3000, labels=900)])
    scores = random_scores(np.random.default_rng(2), 1, 12, 900)
    with on_emulated_cuda():
        assert_full_sum_exact(scores, torch.tensor([12]), fsa)
