"""Captures of sums over one automaton for all utterances: replays leave the bits of eager calls on what they read."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain.errors import CudaError
from seqtrain.fsa import Fsa, FsaBatch, stationary_distribution
from seqtrain.functional import _shared
from seqtrain.infeasible import NOT_HERE
from seqtrain.ops.arguments import gradient_layout
from seqtrain.ops.cuda import copies
from seqtrain.ops.cuda import denominator as on_cuda
from seqtrain.scores import Packed
from tests.cuda.pretend import DEVICE, captured, pretended_cuda, put
from tests.ops.examples import ergodic, offsets_of, packed_rows, random_scores

pytestmark = pytest.mark.torch2  # dispatch modes whose results are a subclass

ops = torch.ops.seqtrain

_LENGTHS, _OTHER_LENGTHS = torch.tensor([12, 5, 9, 11]), torch.tensor([0, 12, 10, 7])


def example(seed: int, *, all_final: bool = False, dtype: torch.dtype = torch.float32) -> Fsa:
    fsa = ergodic(np.random.default_rng(seed), 20, 4, 8, all_final=all_final)
    weights, final_weights = fsa.weights.to(dtype), fsa.final_weights.to(dtype)
    return Fsa(fsa.arcs, weights, num_states=20, start=fsa.start, final=(fsa.final_states, final_weights))


def on_device(fsa: Fsa) -> Fsa:
    """With its weights there; they may be written over."""
    parts = (fsa.arcs, fsa.weights.to(DEVICE), fsa.num_states, fsa.start, fsa.final_states)
    return Fsa._from_checked(*parts, fsa.final_weights.to(DEVICE))


def scores_of(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return random_scores(np.random.default_rng(seed), 4, 12, 8, dtype=dtype)


class Sum(NamedTuple):
    leak: float
    all_final: bool


SUMS = {"hard-ended": Sum(0.0, False), "all-final": Sum(0.0, True), "leaky": Sum(0.1, False)}


def run(
    kind: Sum, fsa: Fsa, scores: torch.Tensor, lengths: torch.Tensor, offsets: torch.Tensor | None = None,
    *, policy: str = "mask",
) -> list[torch.Tensor]:  # fmt: skip
    """Value by the function, and with all gradients by the operators."""
    given = scores if offsets is None else Packed(scores, offsets)
    if kind.leak:
        plain = st.leaky_full_sum(given, lengths, fsa, leak=kind.leak, on_infeasible=policy)
        distribution = stationary_distribution(fsa)
    else:
        plain, distribution = st.full_sum(given, lengths, fsa, on_infeasible=policy), None
    automata, layout = _shared(fsa), fsa.derived["denominator"][1]
    with_weights = fsa.weights.device == DEVICE
    value, occupancies, columns, arcs, finals, status = ops.denominator(
        scores, offsets, lengths, *automata, None, None, layout, kind.leak, distribution, True, with_weights,
        policy, NOT_HERE,
    )  # fmt: skip
    weight = torch.arange(1, 5, dtype=value.dtype, device=DEVICE)
    gradient = ops.denominator_scores_backward(
        weight, scores, automata[1], offsets, lengths, occupancies, columns, status, *gradient_layout(scores)
    )
    memory = scores.clone()
    ops.denominator_scores_backward_into(
        weight, scores, automata[1], offsets, lengths, occupancies, columns, status, memory
    )
    found = [plain, value, status, gradient, memory]
    if with_weights:
        for items, sums, item_offsets in (
            (automata[1], arcs, automata[2]),
            (automata[4], finals, automata[5]),
        ):
            found.append(ops.denominator_weights_backward(weight, scores, items, sums, item_offsets, status))
    return found


def same(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", SUMS)
def test_scores_and_lengths_that_change(name: str, dtype: torch.dtype) -> None:
    """An empty utterance has a path over all-final automata and with a leak, over the others none."""
    kind = SUMS[name]
    fsa = example(3, all_final=kind.all_final)
    with pretended_cuda():
        scores, lengths = scores_of(1, dtype).to(DEVICE), _LENGTHS.to(DEVICE)
        first = run(kind, fsa, scores, lengths)
        with captured() as graph:
            found = run(kind, fsa, scores, lengths)
        graph.replay()
        assert same(found, first)
        put(scores, scores_of(2, dtype))
        put(lengths, _OTHER_LENGTHS)
        graph.replay()
        expected = run(kind, fsa, scores_of(2, dtype).to(DEVICE), _OTHER_LENGTHS)
        assert same(found, expected)
        assert expected[2].cpu().tolist() == [-1 if name == "hard-ended" else 0, 0, 0, 0]


@pytest.mark.parametrize("name", SUMS)
def test_packed_scores(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any utterance may have all rows; little memory for states makes some of their frames a second time."""
    kind = SUMS[name]
    fsa, other = example(5, all_final=True), torch.tensor([20, 3, 1, 13])
    monkeypatch.setattr(on_cuda, "STORE_BYTES", 4096)
    with pretended_cuda():
        packed = packed_rows(scores_of(1), _LENGTHS)
        again = random_scores(np.random.default_rng(7), 1, 37, 8)[0]
        scores, lengths, offsets = (t.to(DEVICE) for t in (packed, _LENGTHS, offsets_of(_LENGTHS)))
        run(kind, fsa, scores, lengths, offsets)
        with captured() as graph:
            found = run(kind, fsa, scores, lengths, offsets)
        for place, value in ((scores, again), (lengths, other), (offsets, offsets_of(other))):
            put(place, value)
        graph.replay()
        assert same(found, run(kind, fsa, again.to(DEVICE), other, offsets_of(other)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", SUMS)
def test_weights_that_change(name: str, dtype: torch.dtype) -> None:
    kind = SUMS[name]
    with pretended_cuda():
        here = [example(7, all_final=kind.all_final, dtype=dtype), example(9, dtype=dtype)]
        fsa, scores, lengths = on_device(here[0]), scores_of(1).to(DEVICE), _LENGTHS.to(DEVICE)
        first = run(kind, fsa, scores, lengths)
        assert len(first) == 7
        with captured() as graph:
            found = run(kind, fsa, scores, lengths)
        graph.replay()
        assert same(found, first)
        put(fsa.weights, 3 * here[0].weights - 1)
        put(fsa.final_weights, here[0].final_weights + torch.linspace(-2, 1, len(here[0].final_weights)))
        graph.replay()
        changed = Fsa._from_checked(
            fsa.arcs, fsa.weights.clone(), 20, fsa.start, fsa.final_states, fsa.final_weights.clone()
        )
        if kind.leak:  # that of the call before the capture
            changed.derived["stationary_distribution"] = fsa.derived["stationary_distribution"]
            kept = fsa.derived["stationary_distribution"][2]
            expected = run_leaky(changed, scores, lengths, kept)
            assert same([found[1], found[3]], expected)
        else:
            assert same(found, run(kind, changed, scores, lengths))


def run_leaky(
    fsa: Fsa, scores: torch.Tensor, lengths: torch.Tensor, distribution: torch.Tensor
) -> list[torch.Tensor]:
    st.leaky_full_sum(scores, lengths, fsa, distribution=distribution)
    automata, layout = _shared(fsa), fsa.derived["denominator"][1]
    value, occupancies, columns, _, _, status = ops.denominator(
        scores, None, lengths, *automata, None, None, layout, 0.1, distribution, True, False, "mask", NOT_HERE
    )
    weight = torch.arange(1, 5, dtype=value.dtype, device=DEVICE)
    gradient = ops.denominator_scores_backward(
        weight, scores, automata[1], None, lengths, occupancies, columns, status, *gradient_layout(scores)
    )
    return [value, gradient]


@pytest.mark.parametrize("what", ["weights", "final_weights"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_cannot_be_used_spoil_the_batch(what: str, value: float) -> None:
    with pretended_cuda():
        fsa, scores, lengths = on_device(example(7)), scores_of(1).to(DEVICE), _LENGTHS.to(DEVICE)
        run(SUMS["hard-ended"], fsa, scores, lengths)
        with captured() as graph:
            plain, _, _, *gradients = run(SUMS["hard-ended"], fsa, scores, lengths)
        bad = getattr(fsa, what).cpu()
        bad[0] = value
        put(getattr(fsa, what), bad)
        graph.replay()
        assert plain.cpu().isnan().all()
        assert not any(gradient.cpu().any() for gradient in gradients)


@pytest.mark.parametrize("name", SUMS)
def test_all_arcs_forbidden(name: str) -> None:
    """The path without arcs is left, to an utterance without frames."""
    kind = SUMS[name]
    with pretended_cuda():
        fsa = on_device(example(7, all_final=True))
        scores, lengths = scores_of(1).to(DEVICE), torch.tensor([12, 0, 0, 3]).to(DEVICE)
        run(kind, fsa, scores, lengths)
        with captured() as graph:
            plain, *_ = run(kind, fsa, scores, lengths)
        before = plain.cpu()
        put(fsa.weights, torch.full(fsa.weights.shape, -torch.inf))
        graph.replay()
        assert plain.cpu()[[0, 3]].tolist() == [0.0, 0.0]
        assert torch.equal(plain.cpu()[1:3], before[1:3])


@pytest.mark.parametrize("length", [13, -1, 1 << 62])
@pytest.mark.parametrize("name", SUMS)
def test_what_eager_calls_raise_for_is_nan_in_a_replay(name: str, length: int) -> None:
    kind = SUMS[name]
    with pretended_cuda():
        fsa, scores = on_device(example(11)), scores_of(1).to(DEVICE)
        lengths = _LENGTHS.to(DEVICE)
        _, value, _, gradient, *_ = run(kind, fsa, scores, lengths)
        with captured() as graph:
            plain, _, _, found, *_ = run(kind, fsa, scores, lengths)
        put(lengths, torch.tensor([length, 5, 9, 11]))
        bad = scores_of(1)
        bad[2, 3, 1] = torch.nan
        put(scores, bad)
        graph.replay()
        assert plain.cpu().isnan().tolist() == [True, False, True, False]
        for b in (1, 3):
            assert torch.equal(plain.cpu()[b], value.cpu()[b])
            assert torch.equal(found.cpu()[b], gradient.cpu()[b])
        assert not found.cpu()[[0, 2]].any()


def test_an_automaton_that_accepts_nothing() -> None:
    fsa = Fsa([[0, 1, 0], [1, 1, 1], [2, 2, 0]], final={2: 0.0})
    with pretended_cuda():
        scores, lengths = torch.zeros(4, 5, 2).to(DEVICE), torch.tensor([5, 4, 5, 3]).to(DEVICE)
        expected = run(SUMS["hard-ended"], fsa, scores, lengths)
        with captured() as graph:
            found = run(SUMS["hard-ended"], fsa, scores, lengths)
        graph.replay()
        assert same(found, expected)
        assert found[2].cpu().tolist() == [-1] * 4


def test_one_utterance_takes_the_kernels_of_a_shared_automaton() -> None:
    fsa, scores = example(3), scores_of(1)
    expected = st.full_sum(scores[:1], _LENGTHS[:1], fsa)
    with pretended_cuda() as cuda:
        there, lengths = scores[:1].to(DEVICE), _LENGTHS[:1].to(DEVICE)
        torch.testing.assert_close(st.full_sum(there, lengths, fsa).cpu(), expected, rtol=1e-5, atol=0)
        st.posteriors(there, lengths, fsa)
        with captured() as graph:
            value = st.full_sum(there, lengths, fsa, on_infeasible="mask")
            shares = st.posteriors(there, lengths, fsa, on_infeasible="mask")
        put(there, scores[1:2])
        graph.replay()
        assert torch.equal(value.cpu(), st.full_sum(scores[1:2].to(DEVICE), _LENGTHS[:1], fsa).cpu())
        assert torch.equal(shares.cpu(), st.posteriors(scores[1:2].to(DEVICE), _LENGTHS[:1], fsa).cpu())
    assert not {kernel for kernel, *_ in cuda.launched if kernel.startswith(b"full_sum")}


def test_what_a_graph_reads_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the automaton is laid out anew, and other weights are copied."""
    monkeypatch.setattr(copies, "_IN_GRAPHS", {})
    with pretended_cuda():
        fsa, scores, lengths = example(3), scores_of(1).to(DEVICE), _LENGTHS.to(DEVICE)
        run(SUMS["leaky"], fsa, scores, lengths)
        with captured() as graph:
            found = run(SUMS["leaky"], fsa, scores, lengths)
        graph.replay()
        expected = [tensor.clone() for tensor in found]
        kept = len(copies._IN_GRAPHS)
        assert kept == 4  # the layout, the weights of arcs and final states, the distribution
        fsa.weights[3] = -torch.inf
        run(SUMS["leaky"], fsa, scores, lengths)
        del fsa
        gc.collect()
        torch.full((1 << 16,), torch.nan)
        graph.replay()
        assert same(found, expected)
        assert len(copies._IN_GRAPHS) == kept


_AUTOMATA = FsaBatch.from_list([example(seed) for seed in range(4)])
_BEFORE = r"make one call, forward and backward, with this very Fsa before the capture"
_OVER_AUTOMATA = (
    r" can't be captured in a CUDA graph, since automata are laid out in host memory in each call: compute it outside "
    r"of the capture"
)

Refusals = dict[str, tuple[str, Callable[[torch.Tensor, torch.Tensor, Fsa], object]]]

_REFUSALS: Refusals = {
    "automata of each utterance": (
        f"full_sum over automata of each utterance{_OVER_AUTOMATA}; CTC on targets",
        lambda x, n, _: st.full_sum(x, n, _AUTOMATA, on_infeasible="mask"),
    ),
    "their posteriors": (
        f"posteriors of automata of each utterance{_OVER_AUTOMATA}",
        lambda x, n, _: st.posteriors(x, n, _AUTOMATA, on_infeasible="mask"),
    ),
    "the best path": (f"best_path{_OVER_AUTOMATA}", lambda x, n, fsa: st.best_path(x, n, fsa, on_infeasible="mask")),
    "the operator of the best path": (
        f"best_path{_OVER_AUTOMATA}",
        lambda x, n, fsa: ops.best_path(x, None, n, *_shared(fsa), 12, "mask", NOT_HERE),
    ),
    "compact posteriors": (
        r"compact_posteriors can't be captured in a CUDA graph, since they are cleared where an utterance has no path: "
        r"compute them outside of the capture, or capture posteriors over one Fsa",
        st.compact_posteriors,
    ),
    "mmi": (
        "full_sum over automata of each utterance",
        lambda x, n, fsa: st.losses.mmi_loss(x, n, _AUTOMATA, fsa, on_infeasible="mask"),
    ),
    "policy": (r"on_infeasible='raise' can't be captured", st.full_sum),
    "lengths in host memory": (
        r"lengths is on cpu, where the replays of a CUDA graph can't read it: pass lengths\.to\('cuda:0'\)",
        lambda x, _, fsa: st.full_sum(x, _LENGTHS, fsa, on_infeasible="inf"),
    ),
    "another automaton": (
        f"the automaton has not been laid out yet, and can't be in a capture in a CUDA graph: {_BEFORE}",
        lambda x, n, _: st.full_sum(x, n, example(3), on_infeasible="inf"),
    ),
    "a distribution of weights never seen": (
        "a stationary distribution of weights on cuda:0 can't be found in a capture in a CUDA graph: make one call "
        "before the capture",
        lambda x, n, fsa: st.leaky_full_sum(x, n, _forgotten(fsa), on_infeasible="inf"),
    ),
    "a distribution never copied": (
        "the distribution of the leak on cpu must be on the device before a capture in a CUDA graph: make one call "
        "with just these before the capture, or have them on the device",
        lambda x, n, fsa: st.leaky_full_sum(x, n, fsa, distribution=torch.ones(20), on_infeasible="inf"),
    ),
    "an operator's layout": (
        "the operator seqtrain::denominator takes arcs and their layout in host memory in a capture",
        lambda x, n, fsa: ops.denominator(
            x, None, n, *_shared(fsa), None, None, None, 0.0, None, True, False, "mask", NOT_HERE
        ),
    ),
}  # fmt: skip


def _forgotten(fsa: Fsa) -> Fsa:
    del fsa.derived["stationary_distribution"]
    return fsa


@pytest.mark.parametrize("what", _REFUSALS)
def test_refusals(what: str) -> None:
    message, function = _REFUSALS[what]
    with pretended_cuda():
        fsa, scores, lengths = on_device(example(3)), scores_of(1).to(DEVICE), _LENGTHS.to(DEVICE)
        run(SUMS["leaky"], fsa, scores, lengths)
        with captured(), pytest.raises(CudaError, match=message) as caught:
            function(scores, lengths, fsa)
    assert caught.value.call == "cudaStreamBeginCapture"


def test_refusals_of_weights_in_host_memory() -> None:
    with pretended_cuda():
        fsa, scores, lengths = example(3), scores_of(1).to(DEVICE), _LENGTHS.to(DEVICE)
        run(SUMS["hard-ended"], fsa, scores, lengths)
        inputs = (scores, None, lengths, *_shared(fsa), None, None, fsa.derived["denominator"][1], 0.0, None)
        with (
            captured(),
            pytest.raises(CudaError, match=r"weights on cpu can get no gradient.*have them on cuda:0"),
        ):
            ops.denominator(*inputs, True, True, "mask", NOT_HERE)
        fsa.weights.mul_(2)
        with (
            captured(),
            pytest.raises(CudaError, match="the weights of the arcs on cpu must be on the device before"),
        ):
            st.full_sum(scores, lengths, fsa, on_infeasible="mask")


def test_refusals_of_a_layout_never_copied() -> None:
    with pretended_cuda():
        fsa, scores, lengths = example(3), scores_of(1).to(DEVICE), _LENGTHS.to(DEVICE)
        st.full_sum(scores_of(1), _LENGTHS, fsa)  # on the host
        with captured(), pytest.raises(CudaError, match="has not been laid out on cuda:0 yet"):
            st.full_sum(scores, lengths, fsa, on_infeasible="mask")
