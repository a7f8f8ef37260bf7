"""The choice of the search; what k2 computes is compared in tests/k2."""

from __future__ import annotations

import sys

import pytest
import torch

from seqtrain import lattice
from seqtrain.errors import ArgumentError, MissingDependencyError, ShapeError
from seqtrain.fsa import Fsa
from seqtrain.scores import Packed

LOOP = Fsa([[0, 0, 0], [0, 0, 1]])


def test_unknown_engine() -> None:
    with pytest.raises(ArgumentError, match="engine must be 'seqtrain' or 'k2', got 'fst'"):
        lattice.intersect(torch.zeros(1, 2, 2), torch.tensor([2]), LOOP, engine="fst")


def test_k2_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "k2", None)
    with pytest.raises(MissingDependencyError, match="k2 is not installed"):
        lattice.intersect(torch.zeros(1, 2, 2), torch.tensor([2]), LOOP, engine="k2")


def test_k2_takes_no_packed_scores() -> None:
    packed = Packed(torch.zeros(2, 2), torch.tensor([0, 2]))
    with pytest.raises(ShapeError, match=r"k2 takes scores of shape \(B, T, V\), not packed ones"):
        lattice.intersect(packed, torch.tensor([2]), LOOP, engine="k2")
