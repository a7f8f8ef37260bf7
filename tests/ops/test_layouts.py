"""The memory layout of the scores doesn't change a bit of the result."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from tests.fsa.strategies import quick
from tests.ops.examples import (
    DTYPES,
    offsets_of,
    packed_rows,
    random_batch,
    random_ctc_batch,
    random_topology,
)
from tests.ops.gradient import scores_gradient

Function = Callable[[torch.Tensor], torch.Tensor]


def frames_first(scores: torch.Tensor) -> torch.Tensor:
    """(T, B, V) in memory."""
    return scores.transpose(0, 1).contiguous().transpose(0, 1)


def labels_first(scores: torch.Tensor) -> torch.Tensor:
    """(B, V, T) in memory."""
    return scores.transpose(1, 2).contiguous().transpose(1, 2)


def every_other_label(scores: torch.Tensor) -> torch.Tensor:
    """A slice of rows twice as long."""
    return torch.stack((scores, torch.full_like(scores, torch.nan)), dim=-1)[..., 0]


def inside_a_larger_tensor(scores: torch.Tensor) -> torch.Tensor:
    """A window with a margin of NaN on all sides, off every alignment."""
    batch, frames, labels = scores.shape
    large = torch.full((batch + 2, frames + 3, labels + 5), torch.nan, dtype=scores.dtype)
    window = large[1 : batch + 1, 2 : frames + 2, 3 : labels + 3]
    window.copy_(scores)
    return window


def negative_free_flip(scores: torch.Tensor) -> torch.Tensor:
    """Utterances in the reverse order in memory (a gather, since torch has no negative strides)."""
    return scores.flip(0).contiguous()[torch.arange(len(scores) - 1, -1, -1)]


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "frames first": frames_first,
    "labels first": labels_first,
    "every other label": every_other_label,
    "inside a larger tensor": inside_a_larger_tensor,
    "gathered": negative_free_flip,
}


def example(name: str, dtype: torch.dtype) -> tuple[torch.Tensor, Function]:
    """Scores and a function of them."""
    if name == "full sum":
        batch = random_batch(2, dtype=dtype, labels=21)
        return batch.scores, lambda x: st.full_sum(x, batch.lengths, batch.automata, on_infeasible="mask")
    scores, *rest = random_ctc_batch(2, labels=21, dtype=dtype)
    return scores, lambda x: st.ctc_loss(x, *rest, normalize=name == "normalized ctc")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["ctc", "normalized ctc", "full sum"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_value_and_gradient(layout: str, name: str, dtype: torch.dtype) -> None:
    scores, function = example(name, dtype)
    moved = LAYOUTS[layout](scores)
    assert torch.equal(moved, scores)
    expected = scores_gradient(function, scores)
    found = scores_gradient(function, moved)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_best_path_and_posteriors(layout: str) -> None:
    scores, lengths, graphs = random_topology("hmm", 3)
    moved = LAYOUTS[layout](scores)
    for found, expected in zip(
        st.best_path(moved, lengths, graphs), st.best_path(scores, lengths, graphs), strict=True
    ):
        assert torch.equal(found, expected)
    assert torch.equal(st.posteriors(moved, lengths, graphs), st.posteriors(scores, lengths, graphs))


def test_the_gradient_has_the_layout_of_the_scores() -> None:
    scores, function = example("normalized ctc", torch.float32)
    for layout in (frames_first, labels_first):
        moved = layout(scores)
        assert scores_gradient(function, moved)[1].stride() == moved.stride()


def test_expanded_scores() -> None:
    """One frame, and one utterance, standing for many: their memory overlaps, the gradients add up."""
    row = torch.randn(1, 1, 5, generator=torch.Generator().manual_seed(0))
    targets, lengths = torch.tensor([[1, 2]] * 3), torch.tensor([6, 4, 5])
    target_lengths = torch.tensor([2, 2, 1])

    def loss(x: torch.Tensor) -> torch.Tensor:
        return st.ctc_loss(x, targets, lengths, target_lengths, normalize=True)

    found = scores_gradient(lambda x: loss(x.expand(3, 6, 5)), row)
    dense = scores_gradient(loss, row.expand(3, 6, 5).contiguous())
    assert torch.equal(found[0], dense[0])
    torch.testing.assert_close(found[1], dense[1].sum(dim=(0, 1), keepdim=True), rtol=1e-5, atol=1e-6)
    assert torch.equal(scores_gradient(loss, row.expand(3, 6, 5))[1], dense[1])


@quick
@given(seed=hs.integers(0, 2**32), dtype=hs.sampled_from(DTYPES), normalize=hs.booleans())
def test_packed_ctc_equals_padded(seed: int, dtype: torch.dtype, normalize: bool) -> None:
    scores, targets, lengths, target_lengths = random_ctc_batch(seed, dtype=dtype)
    offsets = offsets_of(lengths)
    padded = scores_gradient(
        lambda x: st.ctc_loss(x, targets, lengths, target_lengths, normalize=normalize), scores
    )
    packed = scores_gradient(
        lambda x: st.ctc_loss(st.Packed(x, offsets), targets, lengths, target_lengths, normalize=normalize),
        packed_rows(scores, lengths),
    )
    assert torch.equal(padded[0], packed[0])
    assert torch.equal(packed_rows(padded[1], lengths), packed[1])


@quick
@given(seed=hs.integers(0, 2**32), dtype=hs.sampled_from(DTYPES))
def test_packed_full_sum_equals_padded(seed: int, dtype: torch.dtype) -> None:
    scores, lengths, graphs = random_batch(seed, dtype=dtype)
    packed_scores, offsets = packed_rows(scores, lengths), offsets_of(lengths)
    padded = scores_gradient(lambda x: st.full_sum(x, lengths, graphs, on_infeasible="mask"), scores)
    packed = scores_gradient(
        lambda x: st.full_sum(st.Packed(x, offsets), lengths, graphs, on_infeasible="mask"), packed_scores
    )
    assert torch.equal(padded[0], packed[0])
    assert torch.equal(packed_rows(padded[1], lengths), packed[1])
    whole = st.Packed(packed_scores, offsets)
    assert torch.equal(
        packed_rows(st.posteriors(scores, lengths, graphs, on_infeasible="mask"), lengths),
        st.posteriors(whole, lengths, graphs, on_infeasible="mask"),
    )
    longest = int(lengths.max())
    path = st.best_path(whole, lengths, graphs, on_infeasible="inf")
    expected = st.best_path(scores[:, :longest], lengths, graphs, on_infeasible="inf")
    assert all(torch.equal(a, b) for a, b in zip(path, expected, strict=True))


fillers = hs.sampled_from([float("nan"), float("inf"), -1e30, 3.0])


def with_padding(scores: torch.Tensor, lengths: torch.Tensor, filler: float) -> torch.Tensor:
    """The scores with something else past the end of each utterance."""
    padding = torch.arange(scores.shape[1]) >= lengths[:, None]
    return scores.masked_fill(padding[..., None], filler)


@quick
@given(seed=hs.integers(0, 2**32), filler=fillers, normalize=hs.booleans())
def test_padding_of_ctc(seed: int, filler: float, normalize: bool) -> None:
    scores, targets, lengths, target_lengths = random_ctc_batch(seed)
    beyond = torch.arange(targets.shape[1]) >= target_lengths[:, None]
    other_targets = targets.masked_fill(beyond, -100)
    expected = scores_gradient(
        lambda x: st.ctc_loss(x, targets, lengths, target_lengths, normalize=normalize), scores
    )
    found = scores_gradient(
        lambda x: st.ctc_loss(x, other_targets, lengths, target_lengths, normalize=normalize),
        with_padding(scores, lengths, filler),
    )
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@quick
@given(seed=hs.integers(0, 2**32), filler=fillers)
def test_padding_of_the_general_operators(seed: int, filler: float) -> None:
    scores, lengths, graphs = random_topology("hmm", seed)
    filled = with_padding(scores, lengths, filler)
    expected = scores_gradient(lambda x: st.full_sum(x, lengths, graphs), scores)
    found = scores_gradient(lambda x: st.full_sum(x, lengths, graphs), filled)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert torch.equal(st.best_path(scores, lengths, graphs).arcs, st.best_path(filled, lengths, graphs).arcs)
    assert torch.equal(st.posteriors(scores, lengths, graphs), st.posteriors(filled, lengths, graphs))


def test_labels_that_no_arc_uses_may_hold_anything() -> None:
    scores, lengths, graphs = random_topology("hmm", 5)
    used = set(graphs.arcs[:, 2].tolist())
    unused = next(label for label in range(scores.shape[2]) if label not in used)
    filled = scores.clone()
    filled[..., unused] = torch.nan
    assert torch.equal(st.full_sum(scores, lengths, graphs), st.full_sum(filled, lengths, graphs))
    assert torch.equal(st.posteriors(scores, lengths, graphs), st.posteriors(filled, lengths, graphs))
