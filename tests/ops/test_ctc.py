"""The fused CTC loss and its gradient against the reference, and against the general recursion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from tests.fsa.strategies import quick
from tests.ops.exact import assert_ctc_exact
from tests.ops.examples import DTYPES, CtcBatch, random_ctc_batch, random_scores
from tests.ops.gradient import scores_gradient


@quick
@given(seed=hs.integers(0, 2**32), normalize=hs.booleans(), dtype=hs.sampled_from(DTYPES))
def test_random_batches(seed: int, normalize: bool, dtype: torch.dtype) -> None:
    assert_ctc_exact(random_ctc_batch(seed, dtype=dtype), normalize=normalize)


@quick
@given(
    targets=hs.lists(hs.sampled_from([0, 1, 3]), max_size=5),
    frames=hs.integers(0, 8),
    seed=hs.integers(0, 2**32),
    normalize=hs.booleans(),
)
def test_any_targets_with_or_without_a_path(
    targets: list[int], frames: int, seed: int, normalize: bool
) -> None:
    scores = random_scores(np.random.default_rng(seed), 1, frames, 4)
    batch = CtcBatch(
        scores,
        torch.tensor([targets], dtype=torch.int64),
        torch.tensor([frames]),
        torch.tensor([len(targets)]),
    )
    assert_ctc_exact(batch, normalize=normalize, blank=2)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("targets", [1, 14, 15, 16, 17, 31, 32, 33, 100])
def test_numbers_of_targets_around_the_vector_width(targets: int, normalize: bool) -> None:
    assert_ctc_exact(random_ctc_batch(targets, targets=targets, frames=2 * targets + 3), normalize=normalize)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("labels", [2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 130, 257])
def test_numbers_of_labels_around_the_vector_width(labels: int, dtype: torch.dtype) -> None:
    batch = random_ctc_batch(labels, labels=labels, frames=20, targets=6, batch=2, dtype=dtype)
    assert_ctc_exact(batch, normalize=True)
    assert_ctc_exact(batch, normalize=False)


def test_one_label_leaves_nothing_but_blanks() -> None:
    batch = CtcBatch(
        torch.randn(2, 5, 1, generator=torch.Generator().manual_seed(0)),
        torch.zeros(2, 0, dtype=torch.int64),
        torch.tensor([5, 0]),
        torch.tensor([0, 0]),
    )
    assert_ctc_exact(batch, normalize=False)
    assert_ctc_exact(batch, normalize=True)


@pytest.mark.parametrize("blank", [0, 3, 6])
def test_blank_is_any_label(blank: int) -> None:
    batch = random_ctc_batch(blank, labels=6)
    moved = batch.targets + (batch.targets >= blank).long() if blank else batch.targets
    moved = torch.where(moved == blank, blank + 1, moved) if blank < 6 else batch.targets
    scores = random_scores(np.random.default_rng(9), *batch.scores.shape[:2], 8)
    assert_ctc_exact(batch._replace(scores=scores, targets=moved), normalize=True, blank=blank)


@quick
@given(seed=hs.integers(0, 2**32))
def test_the_fused_path_agrees_with_the_general_recursion(seed: int) -> None:
    batch = random_ctc_batch(seed, dtype=torch.float64)
    graphs = st.fsa.ctc(batch.targets, batch.target_lengths)
    loss, fused = scores_gradient(lambda x: st.ctc_loss(x, *batch[1:]), batch.scores)
    value, general = scores_gradient(lambda x: st.full_sum(x, batch.lengths, graphs), batch.scores)
    torch.testing.assert_close(loss, -value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fused, -general, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_any_integer_dtype(dtype: torch.dtype) -> None:
    batch = random_ctc_batch(4)
    expected = st.ctc_loss(*batch)
    assert torch.equal(expected, st.ctc_loss(batch.scores, *(t.to(dtype) for t in batch[1:])))
