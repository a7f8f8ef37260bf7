"""Empty batches, empty utterances, and very long ones."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain.fsa import Fsa, FsaBatch, Transitions, hmm
from tests.ops.examples import DTYPES, random_scores
from tests.ops.gradient import scores_gradient

NO_TARGETS = torch.zeros(0, 0, dtype=torch.int64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("frames", [0, 5])
def test_an_empty_batch(frames: int, dtype: torch.dtype) -> None:
    scores, none = torch.zeros(0, frames, 4, dtype=dtype), torch.zeros(0, dtype=torch.int64)
    for normalize in (True, False):
        leaf = scores.clone().requires_grad_()
        loss = st.ctc_loss(leaf, NO_TARGETS, none, none, normalize=normalize)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        assert loss.shape == (0,)
        assert gradient.shape == scores.shape
    for graphs in (FsaBatch.from_list([]), Fsa([[0, 0, 3]])):
        value, gradient = scores_gradient(lambda x, g=graphs: st.full_sum(x, none, g), scores)  # type: ignore[misc]  # mypy can't type a default of a lambda
        assert value.shape == (0,)
        assert gradient.shape == scores.shape
        assert st.posteriors(scores, none, graphs).shape == scores.shape
        assert st.best_path(scores, none, graphs).labels.shape == (0, frames)


def test_an_empty_packed_batch() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    packed = st.Packed(torch.zeros(0, 4), torch.zeros(1, dtype=torch.int64))
    assert st.ctc_loss(packed, NO_TARGETS, none, none).shape == (0,)
    assert st.full_sum(packed, none, FsaBatch.from_list([])).shape == (0,)
    assert st.posteriors(packed, none, FsaBatch.from_list([])).shape == (0, 4)
    assert st.best_path(packed, none, FsaBatch.from_list([])).labels.shape == (0, 0)


@pytest.mark.parametrize("packed", [False, True])
def test_utterances_without_frames(packed: bool) -> None:
    """No frames and no targets: one path, the empty one, of probability one."""
    values = torch.zeros(0, 4) if packed else torch.zeros(2, 0, 4)
    values.requires_grad_()
    scores = st.Packed(values, torch.zeros(3, dtype=torch.int64)) if packed else values
    lengths, targets = torch.tensor([0, 0]), torch.zeros(2, 0, dtype=torch.int64)
    for normalize in (False, True):
        loss = st.ctc_loss(scores, targets, lengths, lengths, normalize=normalize)
        assert loss.tolist() == [0.0, 0.0]
        assert torch.autograd.grad(loss.sum(), values)[0].shape == values.shape
    value = st.full_sum(scores, lengths, st.fsa.ctc(targets, lengths))
    assert value.tolist() == [0.0, 0.0]
    assert torch.autograd.grad(value.sum(), values)[0].shape == values.shape
    path = st.best_path(scores, lengths, st.fsa.ctc(targets, lengths))
    assert path.score.tolist() == [0.0, 0.0]
    assert path.labels.shape == (2, 0)


def test_the_empty_path_pays_the_final_weight_of_the_start() -> None:
    weights = torch.tensor([0.0]).requires_grad_()
    finals = torch.tensor([-1.5, 2.0]).requires_grad_()
    fsa = Fsa([[0, 1, 0]], weights, final=([0, 1], finals))
    value = st.full_sum(torch.zeros(1, 0, 1), torch.tensor([0]), fsa)
    assert value.tolist() == [-1.5]
    gradients = torch.autograd.grad(value.sum(), (weights, finals))
    assert gradients[0].tolist() == [0.0]
    assert gradients[1].tolist() == [1.0, 0.0]
    assert st.best_path(torch.zeros(1, 0, 1), torch.tensor([0]), fsa).score.tolist() == [-1.5]


def test_utterances_without_targets_are_all_blank() -> None:
    scores = random_scores(np.random.default_rng(0), 2, 6, 4, dtype=torch.float64)
    targets, lengths = torch.zeros(2, 3, dtype=torch.int64) - 1, torch.tensor([6, 2])
    loss, gradient = scores_gradient(
        lambda x: st.ctc_loss(x, targets, lengths, torch.tensor([0, 0]), blank=2), scores
    )
    torch.testing.assert_close(loss, -torch.stack([scores[0, :6, 2].sum(), scores[1, :2, 2].sum()]))
    assert gradient[0, :, 2].tolist() == [-1.0] * 6
    assert gradient[1, :2, 2].tolist() == [-1.0] * 2
    assert gradient.sum() == -8


def resident(field: str) -> int:
    """Bytes in memory: VmRSS now, VmHWM at most since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(field))


def forget_peak() -> int:
    """Linux starts counting the peak anew; returns what is in memory now."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def test_a_hundred_thousand_frames_of_ctc() -> None:
    """What is kept of the recursion grows with the square root of T, not with T times U."""
    frames, labels, targets = 100_000, 12, 300
    random = np.random.default_rng(1)
    scores = random_scores(random, 1, frames, labels)
    rows = torch.from_numpy(random.integers(1, labels, size=(1, targets)))
    lengths, target_lengths = torch.tensor([frames]), torch.tensor([targets])
    before, began = forget_peak(), time.perf_counter()
    loss, gradient = scores_gradient(
        lambda x: st.ctc_loss(x, rows, lengths, target_lengths, normalize=True), scores
    )
    assert time.perf_counter() - began < 10.0
    occupancies = frames * (1 + targets) * 4
    whole_recursion = frames * 6 * (targets + 16) * 4
    assert resident("VmHWM") - before < occupancies + whole_recursion // 4
    double, gradient_double = scores_gradient(
        lambda x: st.ctc_loss(x, rows, lengths, target_lengths, normalize=True), scores.double()
    )
    assert loss.item() == pytest.approx(double.item(), rel=1e-6)
    assert (gradient.double() - gradient_double).abs().max() < 2e-5


def test_a_hundred_thousand_frames_of_an_automaton() -> None:
    frames, labels = 100_000, 12
    random = np.random.default_rng(2)
    scores, lengths = random_scores(random, 1, frames, labels), torch.tensor([frames])
    transitions = Transitions(loop=-0.1, forward=-2.0)
    graphs = hmm(random.integers(0, labels, size=(1, 400)), [400], transitions=transitions)
    before, began = forget_peak(), time.perf_counter()
    value, gradient = scores_gradient(lambda x: st.full_sum(x, lengths, graphs), scores)
    path = st.best_path(scores, lengths, graphs)
    assert time.perf_counter() - began < 10.0
    assert resident("VmHWM") - before < 2 * frames * 400 * 4
    assert path.labels.shape == (1, frames)
    assert path.score.item() <= value.item()
    torch.testing.assert_close(gradient.sum(dim=2), torch.ones(1, frames), rtol=0, atol=1e-5)
    double = scores.double()
    value_double, gradient_double = scores_gradient(lambda x: st.full_sum(x, lengths, graphs), double)
    assert value.item() == pytest.approx(value_double.item(), rel=1e-6)
    assert (gradient.double() - gradient_double).abs().max() < 2e-5


def test_paths_far_below_the_best_scores_of_a_hundred_thousand_frames() -> None:
    """The automaton forces labels that score 500 below the others: e^-50 000 000 is still a probability."""
    frames = 100_000
    scores = torch.zeros(1, frames, 2)
    scores[..., 1] = -500.0
    fsa = Fsa([[0, 0, 0], [0, 1, 1], [1, 1, 1]])
    lengths = torch.tensor([frames])
    value, gradient = scores_gradient(lambda x: st.full_sum(x, lengths, fsa), scores)
    assert value.item() == pytest.approx(-500.0, abs=1e-3)
    assert gradient[0, -1].tolist() == [0.0, 1.0]
    only = Fsa([[0, 0, 1]])
    value, gradient = scores_gradient(lambda x: st.full_sum(x, lengths, only), scores)
    assert value.item() == pytest.approx(-500.0 * frames, rel=1e-6)
    torch.testing.assert_close(gradient[..., 1], torch.ones(1, frames), rtol=0, atol=1e-6)
