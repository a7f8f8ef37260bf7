"""CTC without label loops, its best path, and its soft alignment."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain import reference
from seqtrain.errors import InfeasibleError, LabelError
from seqtrain.losses import CTCLoss, ctc_soft_alignment
from tests.fsa.strategies import quick
from tests.ops.examples import DTYPES, offsets_of, packed_rows, random_ctc_batch
from tests.ops.gradient import gradient, scores_gradient

seeds, loops = hs.integers(0, 2**32), hs.booleans()


@quick
@given(seed=seeds, dtype=hs.sampled_from(DTYPES), normalize=hs.booleans())
def test_without_label_loops_it_is_the_full_sum_of_rna(
    seed: int, dtype: torch.dtype, normalize: bool
) -> None:
    scores, targets, lengths, target_lengths = random_ctc_batch(seed, dtype=dtype)
    loss, found = scores_gradient(
        lambda x: st.ctc_loss(x, targets, lengths, target_lengths, label_loop=False, normalize=normalize),
        scores,
    )
    graphs = st.fsa.rna(targets, target_lengths)
    tolerance = {torch.float16: 2e-2, torch.bfloat16: 1e-1}.get(dtype, 1e-4)
    for b, length in enumerate(lengths.tolist()):
        exact = scores[b, :length].double()
        expected = reference.full_sum_gradients(
            (exact.log_softmax(-1) if normalize else exact).numpy(), graphs[b]
        )
        gradient = -torch.from_numpy(expected.scores)
        if normalize:
            gradient = gradient + exact.softmax(-1)
        assert loss[b].item() == pytest.approx(-expected.score, rel=tolerance, abs=tolerance)
        torch.testing.assert_close(found[b, :length].double(), gradient, rtol=0, atol=tolerance)
        assert not found[b, length:].any()


@quick
@given(seed=seeds, label_loop=loops)
def test_the_best_path(seed: int, label_loop: bool) -> None:
    """The loss is that of the best labeling, its gradient softmax minus one-hot of it."""
    logits, targets, lengths, target_lengths = random_ctc_batch(seed, dtype=torch.float64)
    loss, found = scores_gradient(
        lambda x: st.ctc_loss(
            x, targets, lengths, target_lengths, label_loop=label_loop, paths="best", normalize=True
        ),
        logits,
    )
    graphs = (st.fsa.ctc if label_loop else st.fsa.rna)(targets, target_lengths)
    path = st.best_path(logits.log_softmax(-1), lengths, graphs)
    np.testing.assert_allclose(loss, -path.score, rtol=1e-12)
    for b, length in enumerate(lengths.tolist()):
        one_hot = torch.nn.functional.one_hot(path.labels[b, :length], logits.shape[-1])
        torch.testing.assert_close(found[b, :length], logits[b, :length].softmax(-1) - one_hot)
        assert not found[b, length:].any()


@quick
@given(seed=seeds)
def test_the_best_path_is_one_of_all(seed: int) -> None:
    batch = random_ctc_batch(seed, dtype=torch.float64)
    assert (st.ctc_loss(*batch, paths="best") >= st.ctc_loss(*batch) - 1e-9).all()


@pytest.mark.parametrize("options", [{"label_loop": False}, {"paths": "best"}])
def test_variants_share_the_rules(options: dict[str, object]) -> None:
    """Packed, scaled, reduced, infeasible, named, refused as the full sum."""
    scores, targets, lengths, target_lengths = random_ctc_batch(1, dtype=torch.float64)
    rest = (targets, lengths, target_lengths)
    losses = st.ctc_loss(scores, *rest, **options)  # type: ignore[arg-type]  # of several types
    packed = st.Packed(packed_rows(scores, lengths), offsets_of(lengths))
    assert torch.equal(st.ctc_loss(packed, *rest, **options), losses)  # type: ignore[arg-type]  # likewise
    module = CTCLoss(normalize=False, reduction="targets", **options)  # type: ignore[arg-type]  # likewise
    torch.testing.assert_close(module(scores, *rest), losses.sum() / target_lengths.sum())
    leaf = scores.clone().requires_grad_()
    weights = torch.tensor([1.0, 2.0, 0.0, -1.0], dtype=torch.float64)
    once = gradient(st.ctc_loss(leaf, *rest, **options), leaf)  # type: ignore[arg-type]  # likewise
    twice = gradient(st.ctc_loss(leaf, *rest, **options), leaf, weights)  # type: ignore[arg-type]  # likewise
    torch.testing.assert_close(twice, weights[:, None, None] * once)
    short = lengths.clone()
    short[0] = 1
    with pytest.raises(InfeasibleError, match=r"utterance 0 \(w\): 1 frames given, needs"):
        st.ctc_loss(scores, targets, short, target_lengths, tags=list("wxyz"), **options)  # type: ignore[arg-type]
    masked = st.ctc_loss(scores, targets, short, target_lengths, on_infeasible="mask", **options)  # type: ignore[arg-type]
    assert masked[0] == 0.0
    bad = targets.clone()
    bad[0, 1] = 7
    with pytest.raises(LabelError, match=r"targets\[0, 1\] = 7 is not a column .* 7 labels") as caught:
        st.ctc_loss(scores, bad, lengths, target_lengths, **options)  # type: ignore[arg-type]  # likewise
    assert (caught.value.utterance, caught.value.position, caught.value.num_labels) == (0, 1, 7)


@quick
@given(seed=seeds, label_loop=loops)
def test_a_soft_alignment_is_softmax_minus_the_gradient(seed: int, label_loop: bool) -> None:
    logits, targets, lengths, target_lengths = random_ctc_batch(seed, dtype=torch.float64)
    _, found = scores_gradient(
        lambda x: st.ctc_loss(x, targets, lengths, target_lengths, label_loop=label_loop, normalize=True),
        logits,
    )
    aligned = ctc_soft_alignment(logits, targets, lengths, target_lengths, label_loop=label_loop)
    inside = (torch.arange(logits.shape[1]) < lengths[:, None])[:, :, None]
    torch.testing.assert_close(aligned, (logits.softmax(-1) - found) * inside, rtol=0, atol=1e-9)


def test_a_soft_alignment_of_packed_logits() -> None:
    logits, *rest = random_ctc_batch(2)
    _, lengths, _ = rest
    packed = st.Packed(packed_rows(logits, lengths), offsets_of(lengths))
    aligned = ctc_soft_alignment(packed, *rest)
    torch.testing.assert_close(aligned, packed_rows(ctc_soft_alignment(logits, *rest), lengths))
    torch.testing.assert_close(aligned.sum(-1), torch.ones(int(lengths.sum())))


@pytest.mark.parametrize("options", [{"label_loop": False}, {"paths": "best"}])
def test_long_sums_in_half_precision_are_those_of_the_same_logits(options: dict[str, object]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 800, 50, generator=generator).to(torch.bfloat16)
    rest = (torch.tensor([[3, 7, 9]]), torch.tensor([800]), torch.tensor([3]))
    half = st.ctc_loss(logits, *rest, normalize=True, **options)  # type: ignore[arg-type]  # of several types
    exact = st.ctc_loss(logits.double(), *rest, normalize=True, **options)  # type: ignore[arg-type]  # likewise
    assert half.item() == pytest.approx(exact.item(), abs=5e-3)
