from __future__ import annotations

import itertools
import math
import sys

import pytest

from seqtrain.decoding.error_rates import EditCounts, count_edits, error_rate
from seqtrain.errors import ArgumentError, MissingDependencyError


def edit_distance(reference: str, hypothesis: str) -> int:
    """Levenshtein's recursion, spelt out."""
    if not reference or not hypothesis:
        return len(reference) + len(hypothesis)
    return min(
        edit_distance(reference[1:], hypothesis) + 1,
        edit_distance(reference, hypothesis[1:]) + 1,
        edit_distance(reference[1:], hypothesis[1:]) + (reference[0] != hypothesis[0]),
    )


def test_counts_equal_the_recursion_on_every_pair_of_short_strings() -> None:
    strings = ["".join(s) for n in range(4) for s in itertools.product("ab", repeat=n)]
    for reference, hypothesis in itertools.product(strings, strings):
        counts = count_edits(list(reference), list(hypothesis))
        assert counts.errors == edit_distance(reference, hypothesis), (reference, hypothesis)
        assert counts.reference == len(reference)
        assert counts.insertions - counts.deletions == len(hypothesis) - len(reference)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("press one now", "press nine now", EditCounts(1, 0, 0, 3)),
        ("press one now", "press one right now", EditCounts(0, 1, 0, 3)),
        ("press one now", "press now", EditCounts(0, 0, 1, 3)),
        ("", "", EditCounts(0, 0, 0, 0)),
        ("", "a b", EditCounts(0, 2, 0, 0)),
        ("a b", "", EditCounts(0, 0, 2, 2)),
    ],
)
def test_kinds_of_edits(reference: str, hypothesis: str, expected: EditCounts) -> None:
    assert count_edits(reference.split(), hypothesis.split()) == expected


def test_label_numbers_work_like_words() -> None:
    assert count_edits([3, 1, 2], [3, 2]) == EditCounts(0, 0, 1, 3)


def test_total_weights_utterances_by_their_length() -> None:
    rate = error_rate([["a"], ["b", "c", "d"]], [["x"], ["b", "c", "d"]])
    assert rate.total == EditCounts(1, 0, 0, 4)
    assert rate.rate == 0.25
    assert rate.percent == 25.0
    assert [u.errors for u in rate.utterances] == [1, 0]
    assert str(rate) == "25.00 % (1 of 4: 1 sub, 0 ins, 0 del)"


def test_rate_of_empty_references() -> None:
    assert error_rate([[]], [[]]).rate == 0.0
    assert error_rate([[]], [["a"]]).rate == math.inf
    assert error_rate([], []).rate == 0.0


def test_bootstrap_interval_holds_the_rate_and_repeats() -> None:
    references = [["a"] * 10] * 60
    hypotheses = [["a"] * (10 - i % 4) for i in range(60)]
    rate = error_rate(references, hypotheses)
    low, high = rate.confidence_interval()
    assert low < rate.rate < high
    assert (low, high) == rate.confidence_interval()
    # Utterance rates are 0, .1, .2, .3 in equal shares: their mean over 60 has standard deviation .1118 /
    # sqrt(60).
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.0125 / 60), rel=0.1)
    narrow = rate.confidence_interval(level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_bootstrap_refuses_what_has_no_rate() -> None:
    with pytest.raises(ArgumentError, match="no reference symbols"):
        error_rate([[]], [[]]).confidence_interval()
    with pytest.raises(ArgumentError, match=r"between 0 and 1, got 95"):
        error_rate([["a"]], [["a"]]).confidence_interval(level=95)
    with pytest.raises(ArgumentError, match="at least 1, got 0"):
        error_rate([["a"]], [["a"]]).confidence_interval(samples=0)


def test_a_plain_string_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"reference is a string.*text\.split\(\)") as caught:
        count_edits("press one", ["press", "one"])
    assert caught.value.argument == "reference"


def test_unpaired_hypotheses_are_refused() -> None:
    with pytest.raises(ArgumentError, match="1 references but 2 hypotheses"):
        error_rate([["a"]], [["a"], ["b"]])


def test_missing_kaldialign_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaldialign", None)
    with pytest.raises(MissingDependencyError, match=r"kaldialign.*seqtrain\[recipes\]"):
        count_edits(["a"], ["a"])
