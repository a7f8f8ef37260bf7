"""Captures in a CUDA graph: a replay with other inputs in the same memory leaves the bits of an eager call on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

import seqtrain as st
from seqtrain.errors import CudaError
from seqtrain.infeasible import NOT_HERE, InfeasibleCount
from seqtrain.scores import Packed
from tests.cuda.pretend import DEVICE, NotPermittedError, captured, pretended_cuda, put
from tests.ops.examples import DTYPES, offsets_of, packed_rows

pytestmark = pytest.mark.torch2  # dispatch modes whose results are a subclass

ops = torch.ops.seqtrain

Tensors = Sequence[torch.Tensor]

_LENGTHS = torch.tensor([12, 9, 12, 0, 7])
_TARGETS = torch.tensor([[1, 2, 3, 4], [3, 3, 0, 0], [2, 1, 2, 9], [7, 7, 7, 7], [4, 4, 4, 0]])
_TARGET_LENGTHS = torch.tensor([4, 2, 3, 0, 3])
# In the replay: other targets, of which one is padding now, an utterance too short for a blank between equal
# neighbours, one without frames, one that is empty at both ends.
_OTHER_LENGTHS = torch.tensor([12, 3, 0, 5, 0])
_OTHER_TARGETS = torch.tensor([[4, 1, 1, 2], [3, 3, 1, 0], [2, 5, 5, 5], [1, 2, 3, 4], [0, 0, 0, 0]])
_OTHER_TARGET_LENGTHS = torch.tensor([3, 3, 1, 2, 0])


def scores_of(seed: int, *, frames: int = 12, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(5, frames, 6, generator=generator, dtype=torch.float64)).to(dtype)


def ctc(inputs: Tensors, *, normalize: bool = True, policy: str = "mask") -> list[torch.Tensor]:
    """Loss, status, and the gradient by both operators, of scores, lengths, targets, target lengths[, offsets]."""
    scores, lengths, targets, target_lengths, *rest = inputs
    offsets = rest[0] if rest else None
    given = (offsets, targets, lengths, target_lengths)
    loss, *kept = ops.ctc_loss(scores, *given, None, None, 0, normalize, True, policy, NOT_HERE)
    weight = torch.arange(1, 6, dtype=loss.dtype, device=DEVICE)
    size = (list(scores.shape), list(scores.stride()))
    gradient = ops.ctc_loss_backward(weight, scores, *given, *kept, 0, normalize, *size)
    memory = scores.clone()
    ops.ctc_loss_backward_into(weight, memory, *given, *kept, 0, normalize, memory)
    return [loss, kept[-1], gradient, memory]


def replayed(
    run: Callable[[Tensors], list[torch.Tensor]], before: Tensors, after: Tensors
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What a graph captured over `before` leaves for `after`, and what an eager call does."""
    with pretended_cuda():
        inputs = [tensor.to(DEVICE) for tensor in before]
        first = run(inputs)  # loads the kernels
        with captured() as graph:
            found = run(inputs)
        graph.replay()
        assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(found, first, strict=True))
        for place, tensor in zip(inputs, after, strict=True):
            put(place, tensor)
        graph.replay()
        expected = run([tensor.to(DEVICE) for tensor in after])
        return [tensor.cpu() for tensor in found], [tensor.cpu() for tensor in expected]


def same(found: Tensors, expected: Tensors) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("policy", ["mask", "inf"])
def test_ctc(dtype: torch.dtype, normalize: bool, policy: str) -> None:
    found, expected = replayed(
        lambda inputs: ctc(inputs, normalize=normalize, policy=policy),
        (scores_of(1, dtype=dtype), _LENGTHS, _TARGETS, _TARGET_LENGTHS),
        (scores_of(2, dtype=dtype), _OTHER_LENGTHS, _OTHER_TARGETS, _OTHER_TARGET_LENGTHS),
    )
    assert found[1].tolist() == [0, -1, -1, 0, 0]
    assert same(found, expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16], ids=str)
def test_ctc_of_other_integers(dtype: torch.dtype) -> None:
    before, after = (
        (scores_of(seed), *(tensor.to(dtype) for tensor in rest))
        for seed, rest in (
            (1, (_LENGTHS, _TARGETS, _TARGET_LENGTHS)),
            (2, (_OTHER_LENGTHS, _OTHER_TARGETS, _OTHER_TARGET_LENGTHS)),
        )
    )
    assert same(*replayed(ctc, before, after))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_ctc_of_packed_scores(dtype: torch.dtype) -> None:
    other = torch.tensor([20, 3, 0, 12, 5])  # one has more frames than any had
    found, expected = replayed(
        ctc,
        (
            packed_rows(scores_of(1, dtype=dtype), _LENGTHS), _LENGTHS, _TARGETS, _TARGET_LENGTHS,
            offsets_of(_LENGTHS),
        ),
        (
            packed_rows(scores_of(2, frames=20, dtype=dtype), other), other, _OTHER_TARGETS, _OTHER_TARGET_LENGTHS,
            offsets_of(other),
        ),
    )  # fmt: skip
    assert found[1].tolist() == [0, -1, -1, 0, 0]
    assert same(found, expected)


def functional(inputs: Tensors) -> list[torch.Tensor]:
    scores, lengths, targets, target_lengths = inputs
    return [
        st.ctc_loss(
            scores, targets, lengths, target_lengths, normalize=True, on_infeasible="inf", reduction=reduction
        )
        for reduction in ("none", "sum", "batch", "frames", "targets")
    ]


def test_the_function_and_its_reductions() -> None:
    found, expected = replayed(
        functional,
        (scores_of(1), _LENGTHS, _TARGETS, _TARGET_LENGTHS),
        (scores_of(2), _OTHER_LENGTHS, _OTHER_TARGETS, _OTHER_TARGET_LENGTHS),
    )
    assert found[0].isinf().tolist() == [False, True, True, False, False]
    assert same(found, expected)


def changed(tensor: torch.Tensor, place: tuple[int, ...], value: float) -> torch.Tensor:
    copy = tensor.clone()
    copy[place] = value
    return copy


_SOUND = (scores_of(2), _LENGTHS, _TARGETS, _TARGET_LENGTHS)
_BAD = {
    "a length beyond the scores": (1, (1,), 13),
    "a negative length": (1, (1,), -1),
    "a length of the worst": (1, (1,), torch.iinfo(torch.int64).min),
    "more targets than there are": (3, (1,), 5),
    "a negative number of targets": (3, (1,), -3),
    "a label beyond the scores": (2, (1, 1), 6),
    "a label far beyond the scores": (2, (1, 1), 1 << 40),
    "a negative label": (2, (1, 1), -1),
    "a blank": (2, (1, 1), 0),
    "not a number": (0, (1, 3, 2), float("nan")),
    "infinity": (0, (1, 3, 2), float("inf")),
}


@pytest.mark.parametrize("what", _BAD)
def test_what_eager_calls_raise_for_is_nan_in_a_replay(what: str) -> None:
    """And only there: the other utterances are as ever."""
    at, place, value = _BAD[what]
    bad = [*_SOUND]
    bad[at] = changed(bad[at], place, value)
    with pretended_cuda():
        expected = [tensor.cpu() for tensor in ctc([tensor.to(DEVICE) for tensor in _SOUND])]
        inputs = [tensor.to(DEVICE) for tensor in _SOUND]
        with captured() as graph:
            loss, _, *gradients = ctc(inputs)
        for tensor, other in zip(inputs, bad, strict=True):
            put(tensor, other)
        graph.replay()
        assert loss.cpu().isnan().tolist() == [False, True, False, False, False]
        others = torch.tensor([0, 2, 3, 4])
        for found, wanted in zip((loss, *gradients), (expected[0], *expected[2:]), strict=True):
            assert torch.equal(found.cpu()[others], wanted[others])
        assert not any(gradient.cpu()[1].any() for gradient in gradients)


@pytest.mark.parametrize(
    "offsets",
    [[0, 12, 21, 33, 33, 41], [1, 12, 21, 33, 33, 40], [0, 12, 9, 33, 33, 40], [0, 12, 50, -7, 33, 40]],
)
def test_offsets_that_are_none_spoil_the_batch(offsets: list[int]) -> None:
    with pretended_cuda():
        inputs = [packed_rows(scores_of(1), _LENGTHS), *_SOUND[1:], offsets_of(_LENGTHS)]
        inputs = [tensor.to(DEVICE) for tensor in inputs]
        ctc(inputs)
        with captured() as graph:
            loss, _, *gradients = ctc(inputs)
        put(inputs[4], torch.tensor(offsets))
        graph.replay()
        assert loss.cpu().isnan().all()
        assert not any(gradient.cpu().any() for gradient in gradients)


def test_a_length_unlike_its_offsets_spoils_its_utterance() -> None:
    with pretended_cuda():
        inputs = [packed_rows(scores_of(1), _LENGTHS), *_SOUND[1:], offsets_of(_LENGTHS)]
        inputs = [tensor.to(DEVICE) for tensor in inputs]
        _, _, expected, _ = ctc(inputs)
        with captured() as graph:
            loss, _, gradient, _ = ctc(inputs)
        put(inputs[1], changed(_LENGTHS, (1,), 8))
        graph.replay()
        assert loss.cpu().isnan().tolist() == [False, True, False, False, False]
        assert torch.equal(gradient.cpu()[:12], expected.cpu()[:12])
        assert not gradient.cpu()[12:21].any()
        assert torch.equal(gradient.cpu()[21:], expected.cpu()[21:])


def test_replays_are_not_counted() -> None:
    count = InfeasibleCount()
    with pretended_cuda():
        scores, lengths, targets, target_lengths = (tensor.to(DEVICE) for tensor in _SOUND)
        rest = (targets, lengths, target_lengths)
        st.ctc_loss(scores, *rest, on_infeasible="mask", infeasible=count)
        with captured() as graph:
            st.ctc_loss(scores, *rest, on_infeasible="mask", infeasible=count)
        graph.replay()
    assert count.utterances == 5


Refusals = dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], object]]]

_REFUSALS: Refusals = {
    "policy": (
        r"on_infeasible='raise' can't be captured in a CUDA graph, since its replays can raise no error: pass "
        r"on_infeasible='mask' \(zero loss and gradient of an utterance without a path\) or 'inf'",
        lambda x: st.ctc_loss(x["scores"], x["targets"], x["lengths"], x["target_lengths"]),
    ),
    "lengths in host memory": (
        r"lengths is on cpu, where the replays of a CUDA graph can't read it: pass lengths\.to\('cuda:0'\), made "
        r"before the capture",
        lambda x: st.ctc_loss(x["scores"], x["targets"], _LENGTHS, x["target_lengths"], on_infeasible="inf"),
    ),
    "targets in host memory": (
        "targets is on cpu",
        lambda x: st.ctc_loss(x["scores"], _TARGETS, x["lengths"], x["target_lengths"], on_infeasible="inf"),
    ),
    "offsets in host memory": (
        "offsets is on cpu",
        lambda x: st.ctc_loss(
            Packed(x["scores"][0], offsets_of(_LENGTHS)), x["targets"], x["lengths"], x["target_lengths"]
        ),
    ),
    "an operator's target lengths in host memory": (
        "target_lengths is on cpu",
        lambda x: ctc((x["scores"], x["lengths"], x["targets"], _TARGET_LENGTHS)),
    ),
    "the best path": (
        r"ctc_loss over automata \(paths='best', label_loop=False, torch\.func\) can't be captured in a CUDA graph, "
        "since they are made of the targets in host memory: compute it outside of the capture",
        lambda x: st.ctc_loss(
            x["scores"], x["targets"], x["lengths"], x["target_lengths"], paths="best", on_infeasible="inf"
        ),
    ),
    "other criteria": (
        r"a look at lengths on cuda:0 can't be captured in a CUDA graph, since it waits for the device: compute "
        r"this outside of the capture, or pass lengths\.cpu\(\), made before it",
        lambda x: st.losses.cross_entropy(x["scores"], x["targets"], x["lengths"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", _REFUSALS)
def test_refusals(what: str) -> None:
    message, function = _REFUSALS[what]
    with pretended_cuda():
        inputs = {
            name: tensor.to(DEVICE)
            for name, tensor in zip(("scores", "lengths", "targets", "target_lengths"), _SOUND, strict=True)
        }
        ctc([*inputs.values()])
        with captured(), pytest.raises(CudaError, match=message) as caught:
            function(inputs)
    assert caught.value.call == "cudaStreamBeginCapture"


def test_code_is_loaded_before_the_capture() -> None:
    with pretended_cuda():
        inputs = [tensor.to(DEVICE) for tensor in _SOUND]
        with (
            captured(),
            pytest.raises(
                CudaError, match=r"has not run on cuda:0 yet.*: make one call, forward and backward"
            ),
        ):
            ctc(inputs)


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x.cpu(), lambda x: float(x[0, 0, 0]), lambda x: bool(x.any()), lambda x: x.nonzero(),
        lambda x: x[x > 0], lambda x: x.tolist(), lambda x: torch.equal(x, x),
        lambda x: x.index_select(0, torch.tensor([1])), lambda x: x.masked_select(x > 0),
        lambda x: torch.zeros(3).to(DEVICE), lambda x: x[0, 0, 0].item(), lambda x: x[torch.tensor([1])],
    ],
)  # fmt: skip
def test_what_waits_is_noticed(look: Callable[[torch.Tensor], object]) -> None:
    with pretended_cuda():
        there = scores_of(1).to(DEVICE)
        with captured(), pytest.raises((NotPermittedError, AssertionError)):
            look(there)
