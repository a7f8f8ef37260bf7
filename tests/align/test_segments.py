from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from seqtrain.align.segments import Segment, ctc_units, segments
from seqtrain.errors import ArgumentError, ShapeError


def test_frames_of_no_unit_split_segments_only_between_units() -> None:
    found = segments([-1, 0, -1, 0, 1, -1, 2], ["press", "one", "one"], frame_shift=0.03)
    assert [(s.symbol, s.start_frame, s.end_frame) for s in found] == [
        ("press", 1, 4),
        ("one", 4, 5),
        ("one", 6, 7),
    ]
    assert found[0].start_s == pytest.approx(0.03)
    assert found[0].end_s == pytest.approx(0.12)
    assert found[0].duration_s == pytest.approx(0.09)
    assert found[0].score is None


def test_score_is_the_mean_over_the_segment() -> None:
    scores = torch.tensor([-8.0, -1.0, -2.0, -3.0], dtype=torch.float32)
    (found,) = segments(torch.tensor([-1, 0, -1, 0]), ["a"], frame_shift=0.01, frame_scores=scores)
    assert found == Segment("a", 1, 4, 0.01, 0.04, -2.0)


def test_times_begin_at_the_offset_and_never_before_the_recording() -> None:
    found = segments([0, 0, 1], ["a", "b"], frame_shift=0.03, frame_offset=-0.01)
    assert [s.start_s for s in found] == pytest.approx([0.0, 0.05])
    assert [s.end_s for s in found] == pytest.approx([0.05, 0.08])
    assert found[0].start_frame == 0


def test_units_without_a_frame_have_no_segment() -> None:
    assert segments([], ["a"], frame_shift=0.01) == ()
    assert segments([-1, -1], ["a"], frame_shift=0.01) == ()
    assert [s.symbol for s in segments([0, 2], ["a", "b", "c"], frame_shift=0.01)] == ["a", "c"]


@pytest.mark.parametrize("blank", [0, 2])
def test_ctc_units_of_every_path_of_five_frames(blank: int) -> None:
    for path in itertools.product(range(3), repeat=5):
        units = ctc_units(path, blank=blank)
        # Reading the path again by its units must give what collapsing gives.
        runs = [label for label, _ in itertools.groupby(path)]
        collapsed = [label for label in runs if label != blank]
        shown = [(u, label) for u, label in zip(units.tolist(), path, strict=True) if u >= 0]
        assert [label for _, label in dict.fromkeys(shown)] == collapsed
        assert all((u < 0) == (label == blank) for u, label in zip(units.tolist(), path, strict=True))


def test_ctc_units_read_padding_as_blank() -> None:
    assert ctc_units(torch.tensor([1, 1, 0, 1, -1, -1])).tolist() == [0, 0, -1, 1, -1, -1]
    assert ctc_units(np.array([], dtype=np.int32)).tolist() == []


def test_bad_input_is_named() -> None:
    with pytest.raises(ArgumentError, match="in seconds and positive, got 0"):
        segments([0], ["a"], frame_shift=0.0)
    with pytest.raises(ArgumentError, match="unit 1 has no name: there are 1 symbols"):
        segments([0, 1], ["a"], frame_shift=0.01)
    with pytest.raises(ArgumentError, match="frame 3 goes back to unit 0"):
        segments([0, 1, -1, 0], ["a", "b"], frame_shift=0.01)
    with pytest.raises(ShapeError, match=r"must be \(2,\) like units, got \(3,\)"):
        segments([0, 0], ["a"], frame_shift=0.01, frame_scores=torch.zeros(3))
    with pytest.raises(ShapeError, match=r"units must be \(T,\), got shape \(1, 2\)"):
        segments(torch.zeros(1, 2, dtype=torch.int64), ["a"], frame_shift=0.01)
