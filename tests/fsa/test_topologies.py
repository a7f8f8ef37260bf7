"""linear, ctc, rna, hmm: the languages they accept, their layout, what they refuse."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqtrain.errors import ArgumentError, DtypeError, FsaError, LabelError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch, Transitions, ctc, hmm, linear, rna
from seqtrain.reference import enumerate_paths, full_sum
from tests.fsa.strategies import quick


def accepted(fsa: Fsa, frames: int, labels: int) -> list[tuple[int, ...]]:
    return sorted(path.labels for path in enumerate_paths(np.zeros((frames, labels)), fsa))


def collapse(labels: Sequence[int]) -> list[int]:
    return [label for label, _ in itertools.groupby(labels) if label != 0]


def one(builder: Callable[..., FsaBatch], targets: list[int], **options: Any) -> Fsa:
    return builder(np.array([[*targets, 0]]), [len(targets)], **options)[0]


targets = st.lists(st.integers(1, 2), max_size=3)
frames = st.integers(0, 5)


@quick
@given(targets, frames)
def test_ctc_accepts_each_labelling_that_collapses_to_the_targets_once(labels: list[int], count: int) -> None:
    wanted = [seq for seq in itertools.product(range(3), repeat=count) if collapse(seq) == labels]
    assert accepted(one(ctc, labels), count, 3) == sorted(wanted)


@quick
@given(targets, frames)
def test_rna_accepts_each_labelling_that_is_the_targets_without_blanks_once(
    labels: list[int], count: int
) -> None:
    wanted = [
        seq
        for seq in itertools.product(range(3), repeat=count)
        if [label for label in seq if label] == labels
    ]
    assert accepted(one(rna, labels), count, 3) == sorted(wanted)


@quick
@given(targets, frames)
def test_linear_accepts_the_targets_alone(labels: list[int], count: int) -> None:
    assert accepted(one(linear, labels), count, 3) == ([tuple(labels)] if count == len(labels) else [])


@quick
@given(targets, frames)
def test_hmm_repeats_each_state(labels: list[int], count: int) -> None:
    states = [2 * label + k for label in labels for k in range(2)]
    repeats = itertools.product(range(1, count + 1), repeat=len(states))
    wanted = [
        tuple(state for state, n in zip(states, times, strict=True) for _ in range(n))
        for times in repeats
        if sum(times) == count
    ]
    assert accepted(one(hmm, labels, states_per_label=2), count, 6) == sorted(wanted)


def test_ctc_layout() -> None:
    fsa = ctc(torch.tensor([[3, 3, 1]]), torch.tensor([3]), blank=9)[0]
    assert fsa.arcs.tolist() == [
        [0, 0, 9], [0, 1, 3],
        [1, 1, 3], [1, 2, 9],
        [2, 2, 9], [2, 3, 3],
        [3, 3, 3], [3, 4, 9], [3, 5, 1],
        [4, 4, 9], [4, 5, 1],
        [5, 5, 1], [5, 6, 9],
        [6, 6, 9],
    ]  # fmt: skip
    assert fsa.final_states.tolist() == [5, 6]
    assert not fsa.weights.any()


@pytest.mark.parametrize("builder", [linear, ctc, rna, hmm])
def test_a_batch_is_its_utterances_one_by_one(builder: Callable[..., FsaBatch]) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(1, 4, size=(7, 9))
    lengths = [9, 0, 1, 5, 9, 2, 0]
    batch = builder(labels, lengths)
    for index, length in enumerate(lengths):
        alone = builder(labels[index : index + 1, :length], [length])[0]
        assert batch[index].equal(alone)
    assert len(builder(np.zeros((0, 3), dtype=int), [])) == 0
    assert len(builder(np.zeros((2, 0), dtype=int), [0, 0])) == 2


def test_padding_may_hold_anything() -> None:
    assert ctc([[1, -100]], [1])[0].equal(ctc([[1]], [1])[0])
    assert ctc([[1, 0]], [1])[0].equal(ctc([[1]], [1])[0])


def test_hmm_weights() -> None:
    fsa = one(hmm, [1, 0], states_per_label=2, transitions=Transitions(loop=-1.0, forward=-2.0, skip=-3.0))
    assert fsa.arcs.tolist() == [
        [0, 1, 2],
        [1, 1, 2], [1, 2, 3], [1, 3, 0],
        [2, 2, 3], [2, 3, 0], [2, 4, 1],
        [3, 3, 0], [3, 4, 1],
        [4, 4, 1],
    ]  # fmt: skip
    assert fsa.weights.tolist() == [0.0, -1.0, -2.0, -3.0, -1.0, -2.0, -3.0, -1.0, -2.0, -1.0]
    assert fsa.final_states.tolist() == [4]
    assert fsa.final_weights.tolist() == [-2.0]


def test_hmm_transitions_are_normalised() -> None:
    fsa = one(hmm, [1, 2], states_per_label=2, transitions=Transitions.from_probabilities(loop=0.4))
    total = sum(math.exp(full_sum(np.zeros((count, 6)), fsa)) for count in range(60))
    assert total == pytest.approx(1.0, abs=1e-6)


def test_hmm_columns_may_be_shared_and_of_different_counts() -> None:
    fsa = one(hmm, [0, 2, 1], columns=[[7], [3, 3], [5, 0, 5]])
    assert fsa.arcs[fsa.arcs[:, 0] != fsa.arcs[:, 1], 2].tolist() == [7, 5, 0, 5, 3, 3]
    assert fsa.num_states == 7


def test_without_loops_each_state_takes_one_frame() -> None:
    fsa = one(hmm, [1, 2], transitions=Transitions(loop=-math.inf))
    assert fsa.arcs.tolist() == [[0, 1, 1], [1, 2, 2]]


REFUSED: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: ctc([[1, 0]], [2]), LabelError, "utterance 0, position 1 holds 0, the blank"),
    (lambda: rna([[1], [5]], [1, 1], blank=5), LabelError, "utterance 1, position 0 holds 5, the blank"),
    (lambda: linear([[1, -2]], [2]), LabelError, "utterance 0, position 1 holds -2, outside the labels"),
    (lambda: linear([[2**31]], [1]), LabelError, "holds 2147483648, outside the labels"),
    (lambda: ctc([[1]], [1], blank=-1), LabelError, "blank is -1"),
    (lambda: ctc([[1]], [2]), ShapeError, r"target_lengths\[0\] = 2 is outside 0…1"),
    (lambda: ctc([[1]], [-1]), ShapeError, r"target_lengths\[0\] = -1 is outside 0…1"),
    (lambda: ctc([[1]], [1, 1]), ShapeError, r"target_lengths must have the shape \(1,\), got \(2,\)"),
    (lambda: ctc([1], [1]), ShapeError, r"targets must have the shape \(any, any\), got \(1,\)"),
    (lambda: ctc(torch.ones(1, 1), [1]), DtypeError, "targets must hold integers"),
    (lambda: hmm([[4]], [1], columns=[[0], [1]]), LabelError, "label 4 must be one of the 2 that columns"),
    (lambda: hmm([[2**30]], [1], states_per_label=3), DtypeError, "columns holds 3221225474"),
    (
        lambda: hmm([[1]], [1], states_per_label=0),
        ArgumentError,
        "states_per_label must be at least 1, got 0",
    ),
    (
        lambda: hmm([[1]], [1], states_per_label=2, columns=[[0]]),
        ArgumentError,
        "either states_per_label or columns",
    ),
    (lambda: hmm([[0]], [1], columns=[[0], []]), ShapeError, r"columns\[1\] is empty"),
    (lambda: hmm([[0]], [1], columns=[[0], [-3]]), ArgumentError, r"columns\[1\] holds -3"),
    (
        lambda: hmm([[1]], [1], transitions=Transitions(loop=-1e300)),
        DtypeError,
        r"transitions holds -1e\+300, which doesn't fit float32",
    ),
    (lambda: Transitions(loop=math.nan), ArgumentError, "loop must be a log weight, finite or -inf, got nan"),
    (
        lambda: Transitions.from_probabilities(loop=1.5),
        ArgumentError,
        r"loop must be a probability in \[0, 1\]",
    ),
    (
        lambda: Transitions.from_probabilities(loop=0.9, skip=0.2),
        ArgumentError,
        "loop \\+ skip must not exceed 1",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refuses(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_target_that_is_wrong_is_named() -> None:
    with pytest.raises(LabelError) as caught:
        ctc([[1, 2], [2, 0]], [2, 2])
    error = caught.value
    assert (error.argument, error.utterance, error.position, error.label) == ("targets", 1, 1, 0)
    assert not isinstance(error, FsaError)
