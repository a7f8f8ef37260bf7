from __future__ import annotations

import pytest

from seqtrain.align.boundaries import compare_boundaries
from seqtrain.align.segments import Segment
from seqtrain.errors import ArgumentError


def words(*times: tuple[str, float, float]) -> tuple[Segment, ...]:
    return tuple(Segment(name, round(a * 100), round(b * 100), a, b) for name, a, b in times)


def test_fractions_and_offsets() -> None:
    reference = [words(("press", 0.10, 0.40), ("one", 0.40, 0.70)), words(("now", 0.20, 0.50))]
    hypothesis = [words(("press", 0.15, 0.34), ("one", 0.34, 0.71)), words(("now", 0.20, 0.44))]
    agreement = compare_boundaries(reference, hypothesis)
    assert agreement.words == 3
    assert agreement.starts_within == pytest.approx(2 / 3)  # +50 ms counts as within, -60 ms doesn't
    assert agreement.ends_within == pytest.approx(1 / 3)
    assert agreement.start_offset == pytest.approx(0.0)
    assert agreement.end_offset == pytest.approx(-0.06)
    assert str(agreement) == (
        "3 words: starts 66.7 %, ends 33.3 % within 50 ms (median offsets +0 and -60 ms)"
    )
    assert compare_boundaries(reference, hypothesis, tolerance=0.06).ends_within == 1.0


def test_different_words_are_refused() -> None:
    with pytest.raises(
        ArgumentError, match=r"utterance 1: the reference has the words \['a'\], the hypothesis \['b'\]"
    ):
        compare_boundaries([(), words(("a", 0, 1))], [(), words(("b", 0, 1))])
    with pytest.raises(ArgumentError, match="1 references but 0 hypotheses"):
        compare_boundaries([()], [])
    with pytest.raises(ArgumentError, match="no word to compare"):
        compare_boundaries([()], [()])
