from __future__ import annotations

import itertools

import pytest
import torch

from seqtrain.decoding.greedy import ctc_greedy
from seqtrain.errors import ArgumentError, ShapeError


def collapse(path: tuple[int, ...], blank: int) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label != blank]


@pytest.mark.parametrize("blank", [0, 2])
def test_every_path_of_five_frames_collapses(blank: int) -> None:
    paths = list(itertools.product(range(3), repeat=5))
    scores = torch.nn.functional.one_hot(torch.tensor(paths), 3).float()
    decoded = ctc_greedy(scores, torch.full((len(paths),), 5), blank=blank)
    assert decoded == [collapse(p, blank) for p in paths]


def test_padding_is_not_read() -> None:
    scores = torch.nn.functional.one_hot(torch.tensor([[1, 1, 2], [2, 1, 2]]), 3).double()
    assert ctc_greedy(scores, torch.tensor([2, 0], dtype=torch.int32)) == [[1], []]


def test_no_utterances_and_no_frames() -> None:
    assert ctc_greedy(torch.zeros(0, 4, 3), torch.zeros(0, dtype=torch.int64)) == []
    assert ctc_greedy(torch.zeros(2, 0, 3), torch.zeros(2, dtype=torch.int64)) == [[], []]


def test_bad_arguments_are_named() -> None:
    scores = torch.zeros(2, 4, 3)
    with pytest.raises(ShapeError, match=r"must be \(B, T, V\)"):
        ctc_greedy(scores[0], torch.tensor([4, 4]))
    with pytest.raises(ShapeError, match=r"lengths must be \(2,\)"):
        ctc_greedy(scores, torch.tensor([4]))
    with pytest.raises(ShapeError, match=r"0\.\.4, got 1\.\.5"):
        ctc_greedy(scores, torch.tensor([1, 5]))
    with pytest.raises(ArgumentError, match="blank is 3, but scores have 3 columns"):
        ctc_greedy(scores, torch.tensor([4, 4]), blank=3)
