"""Sentence BLEU, against sacrebleu."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import sacrebleu
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.errors import ArgumentError
from seqtrain.losses.bleu import BleuStatistics, SentenceBleu, bleu_statistics, sentence_bleu
from tests.fsa.strategies import quick
from tests.losses.sequence_examples import BAD_SEQUENCES, GOOD, SequencePairs, sequence_pairs


def text(labels: list[int]) -> str:
    return " ".join(map(str, labels))


@quick
@given(pairs=sequence_pairs(num_labels=3, max_length=12, min_reference=1), order=hs.integers(1, 5))
def test_against_sacrebleu(pairs: SequencePairs, order: int) -> None:
    metric = sacrebleu.BLEU(effective_order=True, smooth_method="exp", tokenize="none", max_ngram_order=order)
    values = sentence_bleu(*pairs, order=order)
    assert values.dtype == torch.float32
    assert values.shape == pairs.reference_lengths.shape
    for value, (hypothesis, reference) in zip(values.tolist(), pairs.pairs(), strict=True):
        expected = metric.sentence_score(text(hypothesis), [text(reference)])
        assert value == pytest.approx(expected.score / 100, rel=1e-6, abs=1e-7)
        statistics = bleu_statistics(hypothesis, reference, order=order)
        assert statistics == BleuStatistics(
            tuple(expected.counts), tuple(expected.totals), expected.sys_len, expected.ref_len
        )


def test_by_hand() -> None:
    """Four of five unigrams, two of four bigrams, one of three trigrams, none of two 4-grams; no brevity penalty."""
    hypothesis, reference = [1, 2, 3, 9, 4], [1, 2, 3, 4]
    statistics = bleu_statistics(hypothesis, reference)
    assert statistics == ((4, 2, 1, 0), (5, 4, 3, 2), 5, 4)
    value = sentence_bleu(
        torch.tensor([hypothesis]), torch.tensor([reference]), torch.tensor([5]), torch.tensor([4])
    )
    expected = (4 / 5 * 2 / 4 * 1 / 3 * 1 / (2 * 2)) ** 0.25
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_a_match_counts_as_often_as_the_reference_has_it() -> None:
    assert bleu_statistics([7] * 5, [7, 7, 1], order=2) == ((2, 1), (5, 4), 5, 3)


def test_extremes() -> None:
    same = torch.tensor([[1, 2, 3, 4, 5]] * 4)
    values = sentence_bleu(same, same, torch.tensor([5, 1, 0, 2]), torch.tensor([5, 1, 5, 5]))
    brevity = torch.tensor(1 - 5 / 2).exp()
    torch.testing.assert_close(values, torch.tensor([1.0, 1.0, 0.0, float(brevity)]))
    other = sentence_bleu(same, same + 10, torch.tensor([5, 1, 0, 2]), torch.tensor([5] * 4))
    assert not other.any()


def test_no_utterances() -> None:
    nothing = torch.zeros(0, 3, dtype=torch.int64)
    lengths = torch.zeros(0, dtype=torch.int64)
    assert sentence_bleu(nothing, nothing, lengths, lengths).shape == (0,)
    assert sentence_bleu(nothing, nothing, lengths, lengths, reduction="batch").item() == 0.0


@pytest.mark.parametrize("reduction", ["none", "sum", "batch"])
def test_reductions(reduction: str) -> None:
    values = sentence_bleu(**GOOD)
    assert values.all()
    expected = values if reduction == "none" else values.sum() / (2 if reduction == "batch" else 1)
    assert torch.equal(sentence_bleu(**GOOD, reduction=reduction), expected)
    assert torch.equal(SentenceBleu(reduction=reduction)(*GOOD.values()), expected)


def test_the_module() -> None:
    module = SentenceBleu(order=2)
    assert repr(module) == "SentenceBleu(order=2, reduction='batch')"
    assert torch.equal(module(*GOOD.values()), sentence_bleu(**GOOD, order=2, reduction="batch"))
    assert module.state_dict() == {}
    for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert repr(other) == repr(module)


@pytest.mark.parametrize(
    ("changes", "error", "argument", "message"),
    [
        *BAD_SEQUENCES,
        (
            {"reference_lengths": torch.tensor([2, 0])},
            ArgumentError,
            "references",
            "the reference of utterance 1 is empty",
        ),
        ({"order": 0}, ArgumentError, "order", "order must be at least 1, got 0"),
        ({"reduction": "targets"}, ArgumentError, "reduction", "got 'targets'"),
    ],
)
def test_bad_input(changes: dict[str, Any], error: type[ArgumentError], argument: str, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        sentence_bleu(**GOOD | changes)
    assert type(caught.value) is error
    assert caught.value.argument == argument


@pytest.mark.parametrize("options", [{"order": 0}, {"reduction": "frames"}])
def test_options_are_checked_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        SentenceBleu(**options)
    assert caught.value.argument in options
    if "order" in options:
        with pytest.raises(ArgumentError, match="order must be at least 1"):
            bleu_statistics([1], [1], **options)
