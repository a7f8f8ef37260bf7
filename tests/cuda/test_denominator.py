"""The shared denominator's CUDA kernels on the emulated block: against reference and CPU, in any order of threads."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain.errors import DerivativeError, FsaError, InfeasibleError, LabelError, NonFiniteScoresError
from seqtrain.fsa import Fsa
from seqtrain.ops.cuda import cluster, denominator_inputs, denominator_layout
from seqtrain.ops.cuda import denominator as on_cuda
from seqtrain.scores import Packed, Scores
from tests.cuda.emulation import ORDERS, EmulatedCuda, emulated_runtime, on_emulated_cuda
from tests.fsa.strategies import quick
from tests.ops.exact import assert_full_sum_exact, assert_leaky_exact, assert_posteriors_exact, trainable
from tests.ops.examples import DTYPES, ergodic, offsets_of, packed_rows, random_fsa, random_scores
from tests.ops.gradient import gradient, scores_gradient

Sum = Callable[[Scores, torch.Tensor, Fsa], torch.Tensor]

SUMS: dict[str, Sum] = {
    "full": lambda x, n, fsa: st.full_sum(x, n, fsa, on_infeasible="mask"),
    "leaky": lambda x, n, fsa: st.leaky_full_sum(x, n, fsa, leak=0.1, on_infeasible="mask"),
}


def value_and_gradients(
    total: Sum, scores: torch.Tensor, lengths: torch.Tensor, fsa: Fsa
) -> list[torch.Tensor]:
    """Value, and its gradients to scores, arc weights and final weights."""
    leaf = scores.detach().requires_grad_()
    graph, weights, final_weights = trainable(fsa)
    assert isinstance(graph, Fsa)
    value = total(leaf, lengths, graph)
    return [value.detach(), *torch.autograd.grad(value.sum(), (leaf, weights, final_weights))]


def example(
    seed: int = 1, *, frames: int = 20, all_final: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, Fsa]:
    """Scores, lengths and the automaton of all; long and short utterances, an empty one where it has a path."""
    random = np.random.default_rng(seed)
    fsa = ergodic(random, 40, 5, 23, all_final=all_final)
    lengths = torch.tensor([frames, 0 if all_final else 15, frames - 1, 17, frames])
    return random_scores(random, 5, frames, 23, dtype=dtype), lengths, fsa


def sweeps(cuda: EmulatedCuda) -> int:
    """How often the denominator's own kernels ran."""
    return sum(name.startswith(b"denominator_sweep") for name, *_ in cuda.launched)


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@quick
@given(seed=hs.integers(0, 2**32), batch=hs.integers(2, 5), dtype=hs.sampled_from(DTYPES))
def test_random_automata(seed: int, batch: int, dtype: torch.dtype) -> None:
    random = np.random.default_rng(seed)
    double = torch.float64 if dtype == torch.float64 else torch.float32
    fsa = random_fsa(random, states=6, arcs=25, labels=5, acyclic=seed % 4 == 0, dtype=double)
    lengths = torch.from_numpy(random.integers(0, 8, size=batch))
    scores = random_scores(random, batch, 7, 5, dtype=dtype)
    with on_emulated_cuda("shuffled") as cuda:
        assert_full_sum_exact(scores, lengths, fsa)
        assert_leaky_exact(scores, lengths, fsa, random.dirichlet(np.ones(6)))
    assert cuda.launched


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("all_final", [True, False])
@pytest.mark.parametrize("name", SUMS)
def test_the_numbers_of_the_cpu(name: str, all_final: bool, dtype: torch.dtype) -> None:
    batch = example(all_final=all_final, dtype=dtype)
    expected = value_and_gradients(SUMS[name], *batch)
    with on_emulated_cuda("descending") as cuda:
        found = value_and_gradients(SUMS[name], *batch)
    assert sweeps(cuda) == 2
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=max(1e-5, torch.finfo(a.dtype).eps), atol=1e-6)


@pytest.mark.parametrize("states", [1, 31, 33, 130])
def test_sizes_around_the_width_of_a_slice(states: int) -> None:
    random = np.random.default_rng(states)
    fsa = random_fsa(random, states=states, arcs=6 * states, labels=2 * states + 1, forbidden=0.0)
    scores = random_scores(random, 3, 9, 2 * states + 1)
    with on_emulated_cuda():
        assert_full_sum_exact(scores, torch.tensor([9, 4, 7]), fsa)
        assert_leaky_exact(scores, torch.tensor([9, 4, 7]), fsa, np.full(states, 1 / states))


@pytest.mark.parametrize("frames", [0, 1, 2, 3])
def test_the_halves_of_short_utterances(frames: int) -> None:
    random = np.random.default_rng(frames)
    fsa, lengths = random_fsa(random, states=6, arcs=25, labels=5), torch.full((3,), frames)
    scores = random_scores(random, 3, 3, 5)
    with on_emulated_cuda("descending"):
        assert_full_sum_exact(scores, lengths, fsa)
        assert_leaky_exact(scores, lengths, fsa, random.dirichlet(np.ones(6)))


@pytest.mark.parametrize("scale", [0.0, 12.0, 60.0, 3e4])
def test_flat_peaky_and_hostile_scores(scale: float) -> None:
    random = np.random.default_rng(3)
    with on_emulated_cuda():
        assert_full_sum_exact(
            random_scores(random, 3, 12, 9, scale=scale), torch.full((3,), 12), ergodic(random, 12, 3, 9)
        )


def test_weights_beyond_the_range_of_float() -> None:
    random = np.random.default_rng(5)
    with on_emulated_cuda():
        for weight in (300.0, -90.0, -700.0):
            fsa = Fsa([[0, 1, 0], [1, 0, 1], [1, 1, 1]], torch.tensor([0.5, weight, 0.0]), final={0: weight})
            assert_full_sum_exact(random_scores(random, 3, 6, 2), torch.tensor([6, 4, 5]), fsa)


def test_weights_that_many_frames_take_far_away() -> None:
    """An exponent of two has 27 bits; the weight of a useless arc isn't what the others are measured by."""
    weights = torch.full((3,), -1e5, dtype=torch.float64)
    weights[2] = 1e7
    fsa = Fsa([[0, 0, 0], [0, 0, 1], [0, 1, 0]], weights, final={0: -1e6})
    scores, lengths = torch.zeros(2, 2000, 2, dtype=torch.float64), torch.tensor([2000, 1500])
    with on_emulated_cuda():
        value = st.full_sum(scores, lengths, fsa)
    expected = lengths.double() * (np.log(2) - 1e5) - 1e6
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("frames", [20, 37])
def test_segments_that_are_computed_again(name: str, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = example(frames=frames)
    with on_emulated_cuda():
        expected = value_and_gradients(SUMS[name], *batch)
        monkeypatch.setattr(on_cuda, "STORE_BYTES", 0)
        found = value_and_gradients(SUMS[name], *batch)
    assert same(found, expected)


@pytest.mark.parametrize("half", [1, 2, 3, 50, 1000])
def test_a_segment_has_as_many_frames_as_memory_allows(half: int) -> None:
    longest, root = 2 * half, int(np.ceil(np.sqrt(half)))
    assert on_cuda.store_frames(longest, 1) == half
    assert on_cuda.store_frames(longest, on_cuda.STORE_BYTES) == root
    assert on_cuda.store_frames(longest, on_cuda.STORE_BYTES // 40) == min(half, max(root, 40))


@pytest.mark.parametrize("name", SUMS)
def test_states_that_do_not_fit_into_shared_memory_stand_in_global_memory(name: str) -> None:
    batch = example(7)
    with on_emulated_cuda() as shared:
        expected = value_and_gradients(SUMS[name], *batch)
    with on_emulated_cuda(largest_shared=256) as small:
        found = value_and_gradients(SUMS[name], *batch)
    assert same(found, expected)
    assert max(bytes_ for *_, bytes_ in small.launched) == 256 < max(bytes_ for *_, bytes_ in shared.launched)


@pytest.mark.parametrize("name", SUMS)
def test_every_order_of_threads_leaves_the_same_bits(name: str) -> None:
    batch, found = example(11), []
    for order in ORDERS:
        with on_emulated_cuda(order):
            found.append(value_and_gradients(SUMS[name], *batch))
    assert all(same(found[0], other) for other in found[1:])


def clusters(cuda: EmulatedCuda) -> set[int]:
    """Blocks of a cluster in the denominator's own launches."""
    launched = zip(cuda.launched, cuda.clusters, strict=True)
    return {blocks for (name, *_), blocks in launched if name.startswith(b"denominator_sweep")}


@pytest.mark.parametrize("largest_shared", [99 << 10, 256])
@pytest.mark.parametrize("name", SUMS)
def test_clusters_of_any_size_leave_the_same_bits(
    name: str, largest_shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, lengths, fsa = example(11, frames=18)
    batch = scores[:2], lengths[:2], fsa
    with on_emulated_cuda() as alone:
        expected = value_and_gradients(SUMS[name], *batch)
    assert clusters(alone) == {1}
    monkeypatch.setattr(cluster, "ARCS_OF_A_BLOCK", 1)
    monkeypatch.setattr(on_cuda, "STORE_BYTES", 0)
    for size, order in ((2, "ascending"), (4, "descending"), (8, "shuffled"))[largest_shared == 256 :]:
        with on_emulated_cuda(order, processors=4 * size, largest_shared=largest_shared) as cuda:
            found = value_and_gradients(SUMS[name], *batch)
        assert clusters(cuda) == {size}
        assert same(found, expected)


def test_clusters_as_large_as_processors_and_work_allow() -> None:
    def of(utterances: int, arcs: int = 10**6, processors: int = 132, largest: int = 8) -> int:
        return cluster.cluster_blocks(2 * utterances, arcs, processors=processors, largest=largest)

    assert [of(b) for b in (1, 8, 9, 16, 17, 33, 34, 100)] == [8, 8, 4, 4, 2, 2, 1, 1]
    assert of(1, processors=16) == 8
    assert of(1, largest=1) == 1
    work = cluster.ARCS_OF_A_BLOCK
    assert [of(1, arcs) for arcs in (0, 2 * work - 1, 2 * work, 4 * work, 8 * work - 1)] == [1, 1, 2, 4, 4]


@pytest.mark.parametrize(("processors", "blocks"), [(4, 1), (32, 8)])
@pytest.mark.parametrize("name", SUMS)
def test_a_missing_barrier_is_caught(
    name: str, processors: int, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ARCS_OF_A_BLOCK", 1)
    scores, lengths, fsa = example(11)
    batch, found = (scores[:2], lengths[:2], fsa), []
    for order in ORDERS:
        with on_emulated_cuda(order, plant="barrier", processors=processors) as cuda:
            found.append(SUMS[name](*batch))
    assert clusters(cuda) == {blocks}
    assert not all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize(("least", "alone"), [(-30.0, True), (-50.0, False)])
def test_weights_take_exponents_of_their_own_only_where_they_need_them(least: float, alone: bool) -> None:
    scores, lengths, fsa = example(12)
    fsa.weights[3] = float(fsa.weights.max()) + least
    weights = fsa.weights.double()
    on = emulated_runtime(EmulatedCuda())
    assert denominator_inputs._range(weights, torch.arange(len(weights))) == (float(weights.max()), alone)
    item = torch.arange(len(weights), dtype=torch.int32)
    mantissa, exponent = on_cuda._split(on, torch.float32, weights, item, largest=float(weights.max()))
    assert exponent is not None
    if alone:
        number, none = on_cuda._split(
            on, torch.float32, weights, item, largest=float(weights.max()), alone=True
        )
        assert none is None
        assert torch.equal(number.double(), mantissa.double() * 2.0 ** exponent.double())
    expected = value_and_gradients(SUMS["full"], scores, lengths, fsa)
    with on_emulated_cuda():
        found = value_and_gradients(SUMS["full"], scores, lengths, fsa)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SUMS)
def test_alone_and_in_company(name: str) -> None:
    scores, lengths, fsa = example(13)
    with on_emulated_cuda():
        whole = scores_gradient(lambda x: SUMS[name](x, lengths, fsa), scores)
        pair = scores_gradient(lambda x: SUMS[name](x, lengths[[4, 1]], fsa), scores[[4, 1]])
    assert all(torch.equal(a[[4, 1]], b) for a, b in zip(whole, pair, strict=True))


@pytest.mark.parametrize("name", SUMS)
def test_packed_is_padded_and_padding_is_not_read(name: str) -> None:
    scores, lengths, fsa = example(13, all_final=True)
    for b, length in enumerate(lengths.tolist()):
        scores[b, length:] = torch.nan
    with on_emulated_cuda():
        value, expected = scores_gradient(lambda x: SUMS[name](x, lengths, fsa), scores)
        packed, found = scores_gradient(
            lambda x: SUMS[name](Packed(x, offsets_of(lengths)), lengths, fsa),
            packed_rows(scores, lengths),
        )
    assert torch.equal(packed, value)
    assert torch.equal(found, packed_rows(expected, lengths))


@pytest.mark.parametrize("name", SUMS)
def test_weights_alone_have_a_gradient(name: str) -> None:
    scores, lengths, fsa = example(15)
    graph, weights, final_weights = trainable(fsa)
    assert isinstance(graph, Fsa)
    with on_emulated_cuda():
        expected = value_and_gradients(SUMS[name], scores, lengths, fsa)[2:]
        value = SUMS[name](scores, lengths, graph)
        found = torch.autograd.grad(value.sum(), (weights, final_weights))
    assert same(list(found), expected)


def test_the_gradient_in_place_of_the_scores() -> None:
    scores, lengths, fsa = example(17)
    with on_emulated_cuda():
        _, expected = scores_gradient(lambda x: st.leaky_full_sum(x, lengths, fsa), scores)
        memory = scores.transpose(0, 2).contiguous().transpose(0, 2)
        leaf = memory.detach().requires_grad_()
        st.leaky_full_sum(leaf, lengths, fsa, gradient_out=memory).sum().backward()
    assert torch.equal(memory, expected)


def test_compact_posteriors() -> None:
    batch = example(19)
    expected = st.compact_posteriors(*batch)
    with on_emulated_cuda() as cuda:
        found = st.compact_posteriors(*batch)
    assert sweeps(cuda) == 2
    torch.testing.assert_close(found.value, expected.value, rtol=1e-5, atol=1e-5)
    assert torch.equal(found.labels, expected.labels)
    for b, length in enumerate(batch[1].tolist()):
        torch.testing.assert_close(
            found.occupancies[b, :length], expected.occupancies[b, :length], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_posteriors(dtype: torch.dtype) -> None:
    scores, lengths, fsa = example(20, dtype=dtype)
    with on_emulated_cuda("shuffled") as cuda:
        assert_posteriors_exact(scores, lengths, fsa)
    assert sweeps(cuda) == 2


def test_second_derivatives_are_refused() -> None:
    scores, lengths, fsa = example(21)
    leaf = scores.detach().requires_grad_()
    for total, said in ((st.full_sum, "for the CPU alone"), (st.leaky_full_sum, "no second derivative")):
        with on_emulated_cuda():
            (first,) = torch.autograd.grad(total(leaf, lengths, fsa).sum(), leaf, create_graph=True)
            with pytest.raises(DerivativeError, match=said):
                gradient(first.square().sum(), leaf)


def test_errors_are_those_of_the_cpu() -> None:
    scores, lengths, fsa = example(23)
    with on_emulated_cuda():
        bad = scores.clone()
        bad[2, 5] = float("nan")
        for total in (st.full_sum, st.leaky_full_sum):
            with pytest.raises(NonFiniteScoresError, match=r"utterance 2 hold NaN.* at frame 5"):
                total(bad, lengths, fsa)
            with pytest.raises(LabelError, match=r"arc \d+ of automaton 0 has label \d+, but scores have 1"):
                total(scores[:, :, :1], lengths, fsa)
        hard = Fsa([[0, 1, 0], [1, 2, 1], [2, 0, 2], [2, 2, 2]], final={2: 0.0})
        with pytest.raises(InfeasibleError, match="utterance 1: 1 frames given, needs 2"):
            st.full_sum(scores[:2], torch.tensor([6, 1]), hard)
        fsa.weights[1] = float("nan")  # as an optimizer may
        for total in (st.full_sum, st.leaky_full_sum):
            with pytest.raises(FsaError, match=r"weight of arc 1 of automaton 0 is nan"):
                total(
                    scores,
                    lengths,
                    fsa,
                    **({"distribution": torch.ones(40)} if total is st.leaky_full_sum else {}),
                )


def test_infeasible_utterances_among_others() -> None:
    random = np.random.default_rng(8)
    fsa = Fsa([[0, 1, 0], [1, 2, 1], [2, 0, 2], [2, 2, 2]], final={2: 0.0})
    scores, lengths = random_scores(random, 4, 6, 3), torch.tensor([6, 1, 6, 5])
    scores[2, 3] = -torch.inf
    with on_emulated_cuda():
        assert_full_sum_exact(scores, lengths, fsa)
        value, posteriors = scores_gradient(
            lambda x: st.full_sum(x, lengths, fsa, on_infeasible="mask"), scores
        )
        assert value[[1, 2]].tolist() == [0.0, 0.0]
        assert not posteriors[[1, 2]].any()
        with pytest.raises(InfeasibleError, match="utterance 2: 6 frames given: no path"):
            st.full_sum(scores, torch.tensor([6, 2, 6, 5]), fsa)


def test_a_leak_into_an_automaton_that_accepts_nothing() -> None:
    fsa = Fsa([[0, 1, 0], [1, 1, 1], [2, 2, 0]], final={2: 0.0})
    scores, lengths = torch.zeros(2, 4, 2), torch.tensor([4, 3])
    rest = {"leak": 0.1, "distribution": torch.full((3,), 1 / 3)}
    for run in (SUMS["full"], lambda x, n, f: st.leaky_full_sum(x, n, f, on_infeasible="mask", **rest)):
        expected = value_and_gradients(run, scores, lengths, fsa)
        with on_emulated_cuda() as cuda:
            assert same(value_and_gradients(run, scores, lengths, fsa), expected)
        assert sweeps(cuda) == 0
    with on_emulated_cuda(), pytest.raises(InfeasibleError, match="utterance 0: 4 frames given"):
        st.leaky_full_sum(scores, lengths, fsa, leak=0.1, distribution=torch.full((3,), 1 / 3))


def test_no_utterances() -> None:
    with on_emulated_cuda() as cuda:
        value = st.leaky_full_sum(torch.zeros(0, 3, 23), torch.zeros(0, dtype=torch.int64), example()[2])
    assert value.shape == (0,)
    assert cuda.launched == []


def test_a_layout_stays_on_the_device_as_long_as_the_automaton_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    lay_out = denominator_layout._lay_out
    monkeypatch.setattr(denominator_layout, "_lay_out", lambda *given: made.append(1) or lay_out(*given))
    scores, lengths, fsa = example(25)
    with on_emulated_cuda():
        first = st.leaky_full_sum(scores, lengths, fsa)
        assert torch.equal(st.leaky_full_sum(scores, lengths, fsa), first)
        assert len(made) == 1
        gc.collect()
        before = len(denominator_layout._KEPT)
        fsa.weights[3] = -torch.inf  # another structure
        changed = st.leaky_full_sum(scores, lengths, fsa)
        assert len(made) == 2
        assert len(denominator_layout._KEPT) == before
    torch.testing.assert_close(changed, st.leaky_full_sum(scores, lengths, fsa), rtol=1e-5, atol=1e-5)
    assert not torch.equal(changed, first)
    del fsa
    gc.collect()
    assert len(denominator_layout._KEPT) == before - 1


def test_a_large_automaton() -> None:
    """More states and more columns than a block has threads."""
    random = np.random.default_rng(1)
    fsa = random_fsa(random, states=700, arcs=3000, labels=900)
    scores = random_scores(random, 2, 12, 900)
    with on_emulated_cuda():
        assert_full_sum_exact(scores, torch.tensor([12, 7]), fsa)
