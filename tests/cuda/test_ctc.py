"""CTC's CUDA kernels on the emulated block: against the reference, and bit for bit whatever the order of threads."""

from __future__ import annotations

import pytest
import torch

import seqtrain as st
from seqtrain.errors import InfeasibleError, LabelError, NonFiniteScoresError
from seqtrain.scores import Packed
from tests.cuda.emulation import ORDERS, on_emulated_cuda
from tests.ops.exact import assert_ctc_exact
from tests.ops.examples import DTYPES, CtcBatch, offsets_of, packed_rows, random_ctc_batch
from tests.ops.gradient import scores_gradient


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("normalize", [False, True])
def test_random_batches(dtype: torch.dtype, normalize: bool) -> None:
    with on_emulated_cuda("shuffled"):
        assert_ctc_exact(random_ctc_batch(3, frames=14, targets=5, dtype=dtype), normalize=normalize)


@pytest.mark.parametrize("scale", [0.0, 12.0, 60.0, 3e4])
def test_flat_peaky_and_hostile_scores(scale: float) -> None:
    with on_emulated_cuda():
        assert_ctc_exact(random_ctc_batch(5, frames=12, targets=4, scale=scale), normalize=True)


@pytest.mark.parametrize("frames", [0, 1, 2, 3])
def test_the_halves_of_short_utterances(frames: int) -> None:
    targets = torch.tensor([[1, 2], [1, 1], [3, 0], [0, 0]])
    batch = CtcBatch(
        torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(frames)),
        targets,
        torch.full((4,), frames),
        torch.tensor([2, 2, 1, 0]),
    )
    with on_emulated_cuda("descending"):
        assert_ctc_exact(batch, normalize=False)
        assert_ctc_exact(batch, normalize=True)


def test_more_states_than_threads() -> None:
    targets = torch.randint(1, 5, (1, 520), generator=torch.Generator().manual_seed(1))
    scores = torch.randn(1, 1050, 5, generator=torch.Generator().manual_seed(2))
    lengths, target_lengths = torch.tensor([1050]), torch.tensor([520])

    def loss(x: torch.Tensor) -> torch.Tensor:
        return st.ctc_loss(x, targets, lengths, target_lengths)

    expected = loss(scores)
    with on_emulated_cuda():
        torch.testing.assert_close(loss(scores), expected, rtol=1e-5, atol=0)


def test_states_that_do_not_fit_into_shared_memory_stand_in_global_memory() -> None:
    batch = random_ctc_batch(7, frames=14, targets=5)
    with on_emulated_cuda() as shared:
        expected = scores_gradient(lambda x: st.ctc_loss(x, *batch[1:], normalize=True), batch.scores)
    used = {}
    for largest_shared in (256, 512):  # without shared memory, and without that to read ahead
        with on_emulated_cuda(largest_shared=largest_shared) as small:
            found = scores_gradient(lambda x: st.ctc_loss(x, *batch[1:], normalize=True), batch.scores)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        used[largest_shared] = max(bytes_ for *_, bytes_ in small.launched)
    assert used[256] == 256 < used[512] <= 512 < max(bytes_ for *_, bytes_ in shared.launched)


def test_every_order_of_threads_leaves_the_same_bits() -> None:
    batch = random_ctc_batch(11, frames=14, targets=5)
    found = []
    for order in ORDERS:
        with on_emulated_cuda(order):
            found.append(scores_gradient(lambda x: st.ctc_loss(x, *batch[1:], normalize=True), batch.scores))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_missing_barrier_is_caught() -> None:
    batch = random_ctc_batch(11, batch=2, frames=90, targets=40)
    found = []
    for order in ORDERS:
        with on_emulated_cuda(order, plant="barrier"):
            found.append(st.ctc_loss(*batch, on_infeasible="inf"))
    assert not all(torch.equal(found[0], other) for other in found[1:])


def test_packed_scores() -> None:
    scores, targets, lengths, target_lengths = random_ctc_batch(13, frames=12, targets=4)
    packed, offsets = packed_rows(scores, lengths), offsets_of(lengths)
    expected, padded = scores_gradient(
        lambda x: st.ctc_loss(x, targets, lengths, target_lengths, normalize=True), scores
    )
    with on_emulated_cuda():
        loss, gradient = scores_gradient(
            lambda x: st.ctc_loss(Packed(x, offsets), targets, lengths, target_lengths, normalize=True),
            packed,
        )
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, packed_rows(padded, lengths), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_in_place_gradient_and_strange_strides(dtype: torch.dtype) -> None:
    batch = random_ctc_batch(17, frames=12, targets=4, dtype=dtype)
    with on_emulated_cuda():
        _, expected = scores_gradient(lambda x: st.ctc_loss(x, *batch[1:], normalize=True), batch.scores)
        memory = batch.scores.transpose(0, 2).contiguous().transpose(0, 2)
        leaf = memory.detach().requires_grad_()
        loss = st.ctc_loss(leaf, *batch[1:], normalize=True, gradient_out=memory)
        loss.sum().backward()
    assert torch.equal(leaf.grad, expected)
    assert torch.equal(memory, expected)


def test_the_number_of_launches_does_not_depend_on_the_frames() -> None:
    for frames in (4, 40):
        with on_emulated_cuda() as cuda:
            scores_gradient(
                lambda x, frames=frames: st.ctc_loss(
                    x, torch.tensor([[1]]), torch.tensor([frames]), torch.tensor([1])
                ),
                torch.randn(1, frames, 3),
            )
        assert len(cuda.launched) == 8


def test_errors_are_those_of_the_cpu() -> None:
    scores, targets, lengths, target_lengths = random_ctc_batch(19, frames=12, targets=4)
    with on_emulated_cuda():
        bad = scores.clone()
        bad[3, 5, 0] = float("nan")
        with pytest.raises(NonFiniteScoresError, match=r"utterance 3 hold NaN.* at frame 5"):
            st.ctc_loss(bad, targets, lengths, target_lengths, normalize=True)
        with pytest.raises(InfeasibleError, match="utterance 0: 1 frames given, needs"):
            st.ctc_loss(scores, targets, torch.ones_like(lengths), target_lengths)
        with pytest.raises(LabelError, match=r"targets\[0, 0\] = 9"):
            st.ctc_loss(scores, torch.full_like(targets, 9), lengths, target_lengths)


def test_utterances_without_a_path() -> None:
    scores, targets, lengths, target_lengths = random_ctc_batch(23, frames=12, targets=4)
    scores[0, :, targets[0, 0]] = float("-inf")
    with on_emulated_cuda():
        assert_ctc_exact(CtcBatch(scores, targets, lengths, target_lengths), normalize=False)


def test_no_utterances() -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    with on_emulated_cuda() as cuda:
        assert st.ctc_loss(torch.zeros(0, 3, 4), empty.reshape(0, 2), empty, empty).shape == (0,)
    assert cuda.launched == []


def test_mass_spread_over_many_states_and_then_gathered() -> None:
    """Flat scores spread a middle frame's mass over all states; the first and the last frame have two."""
    targets = torch.arange(1, 61)[None] % 5 + 1
    with on_emulated_cuda():
        assert_ctc_exact(
            CtcBatch(torch.zeros(1, 130, 6), targets, torch.tensor([130]), torch.tensor([60])),
            normalize=False,
        )
