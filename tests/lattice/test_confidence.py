"""Confidence of frames, tokens and words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain import lattice as lt
from seqtrain.errors import ArgumentError
from seqtrain.fsa import Fsa
from seqtrain.lattice import Lattice, Unit

LOOP = Fsa([[0, 1, label] for label in range(3)] + [[1, 1, label] for label in range(3)])


def test_frames_are_the_posteriors_of_the_paths_labels() -> None:
    scores = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lengths = torch.tensor([6, 4, 5])
    lattice = lt.intersect(scores, lengths, LOOP)
    found = lt.confidence(lattice)
    assert isinstance(found, torch.Tensor)
    posteriors = st.posteriors(scores, lengths, LOOP)
    labels = st.best_path(scores, lengths, LOOP).labels
    expected = posteriors.gather(2, labels.clamp(min=0)[:, :, None])[:, :, 0] * (labels >= 0)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_tokens_are_runs_of_a_label() -> None:
    probabilities = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]], dtype=torch.float64)
    graph = Fsa([[0, 0, 0], [0, 0, 1]])
    lattice = lt.intersect(probabilities.log()[None], torch.tensor([3]), graph)
    (units,) = lt.confidence(lattice, level="token")
    assert [unit[:3] for unit in units] == [(0, 0, 2), (1, 2, 3)]
    np.testing.assert_allclose([unit.confidence for unit in units], [0.7, 0.9], atol=1e-9)


def word_lattice() -> Lattice:
    """Two words: 7 or 8, then 9; 7 may begin one frame later. Probabilities 0.5 and 0.2 (7), 0.3 (8)."""
    return Lattice(
        [[0, 1, 0], [0, 2, 0], [0, 2, 1], [1, 2, 1], [2, 3, 2]],
        np.log([0.2, 0.5, 0.3, 1.0, 1.0]),
        frames=[0, 1, 4, 6], final_states=[3], final_weights=np.zeros(1),
        arc_offsets=[0, 5], state_offsets=[0, 4], final_offsets=[0, 1], aux=[-1, 7, 8, 7, 9],
    )  # fmt: skip


def test_words_gather_what_begins_near() -> None:
    lattice = word_lattice()
    (units,) = lt.confidence(lattice, level="word")
    assert [unit[:3] for unit in units] == [(7, 0, 4), (9, 4, 6)]
    np.testing.assert_allclose([unit.confidence for unit in units], [0.7, 1.0], atol=1e-9)
    other = lt.nbest(lattice, 3, unique="aux")
    second = lt.Paths(
        lattice, torch.tensor([0, 1]), other.arc_offsets[1:3] - other.arc_offsets[1],
        other.arcs_of(1), other.finals[1:2],
    )  # fmt: skip
    (units,) = lt.confidence(lattice, level="word", paths=second)
    assert [unit.label for unit in units] == [8, 9]
    np.testing.assert_allclose(units[0].confidence, 0.3, atol=1e-9)


def test_arcs_of_several_frames_count_at_each() -> None:
    found = lt.confidence(word_lattice())
    # The best path has label 0 in frames 0 to 3; there 0.7 in the first, 0.5 behind the arc that ends at frame 1.
    np.testing.assert_allclose(found, [[0.7, 0.5, 0.5, 0.5, 1.0, 1.0]], atol=1e-9)


def test_an_utterance_without_a_path() -> None:
    scores = torch.zeros(2, 2, 3)
    lattice = lt.intersect(
        scores, torch.tensor([2, 0]), LOOP, aux=[1, 2, 3, -1, -1, -1], on_infeasible="mask"
    )
    frames = lt.confidence(lattice)
    assert frames[1].tolist() == [0.0, 0.0]
    assert lt.confidence(lattice, level="token")[1] == []
    words = lt.confidence(lattice, level="word")
    assert words[1] == []
    assert words[0][0] == Unit(1, 0, 2, pytest.approx(1 / 3))


def test_bad_input() -> None:
    lattice = word_lattice()
    with pytest.raises(ArgumentError, match="level must be 'frame', 'token' or 'word', got 'phone'"):
        lt.confidence(lattice, level="phone")
    with pytest.raises(ArgumentError, match="paths hold 3 paths of utterance 0: pass one of each"):
        lt.confidence(lattice, paths=lt.nbest(lattice, 3))
    with pytest.raises(ArgumentError, match="no auxiliary labels"):
        lt.confidence(Lattice._from_checked(lattice._parts() | {"aux": None}), level="word")
