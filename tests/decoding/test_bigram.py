from __future__ import annotations

import math

import pytest

from seqtrain.decoding.bigram import SENTENCE_END, SENTENCE_START, witten_bell
from seqtrain.errors import ArgumentError

TEXT = [["press", "one"], ["press", "two"], ["press", "one", "now"], []]


def test_values_by_hand() -> None:
    model = witten_bell(TEXT)
    # Tokens: press 3, one 2, two 1, now 1, end 4: 11 of 5 types. After press: one 2, two 1.
    one = (2 + 5 / 6) / (11 + 5)
    assert model.unigram("one") == pytest.approx(math.log(one))
    assert model.log_prob("one", "press") == pytest.approx(math.log((2 + 2 * one) / (3 + 2)))
    now = (1 + 5 / 6) / 16
    assert model.log_prob("now", "press") == pytest.approx(math.log(2 / 5 * now))
    assert model.log_prob("press", SENTENCE_START) == pytest.approx(
        math.log((3 + 2 * (3 + 5 / 6) / 16) / (4 + 2))
    )


@pytest.mark.parametrize("history", [SENTENCE_START, "press", "one", "two", "now", "never-seen"])
def test_probabilities_of_known_words_leave_only_the_share_of_unknown_ones(history: str) -> None:
    model = witten_bell(TEXT)
    known = sum(math.exp(model.log_prob(w, history)) for w in model.unigrams)
    unknown = math.exp(model.backoffs.get(history, 0.0)) * (5 / 6) / 16
    assert known + unknown == pytest.approx(1.0)


def test_stored_bigrams_are_never_below_the_backoff() -> None:
    model = witten_bell(TEXT)
    for (history, word), log_prob in model.bigrams.items():
        assert log_prob > model.backoffs[history] + model.unigram(word)


def test_unknown_words_cost_the_floor() -> None:
    model = witten_bell(TEXT, floor=-7.0)
    assert model.unigram("nine") == -7.0
    assert model.log_prob("nine", "nine") == -7.0
    assert model.log_prob("nine", "press") == -7.0


def test_score_and_perplexity() -> None:
    model = witten_bell(TEXT)
    expected = (
        model.log_prob("press", SENTENCE_START)
        + model.log_prob("two", "press")
        + model.log_prob(SENTENCE_END, "two")
    )
    assert model.score(["press", "two"]) == pytest.approx(expected)
    assert model.perplexity([["press", "two"]]) == pytest.approx(math.exp(-expected / 3))


def test_bad_text_is_refused() -> None:
    with pytest.raises(ArgumentError, match="not a string"):
        witten_bell(["press one"])
    with pytest.raises(ArgumentError, match="at least one sentence"):
        witten_bell([])
    with pytest.raises(ArgumentError, match="remove <s> and </s>"):
        witten_bell([["<s>", "one", "</s>"]])
    with pytest.raises(ArgumentError, match="floor is a log probability and can't be 1e-05"):
        witten_bell(TEXT, floor=1e-5)
    with pytest.raises(ArgumentError, match="at least one sentence"):
        witten_bell(TEXT).perplexity([])
