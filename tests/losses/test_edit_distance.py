"""Edit distance, against kaldialign."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import kaldialign
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.errors import ArgumentError, LabelError
from seqtrain.losses.edit_distance import EditDistance, LabelMap, edit_distance
from tests.fsa.strategies import quick
from tests.losses.sequence_examples import BAD_SEQUENCES, GOOD, SequencePairs, sequence_pairs


def errors(hypothesis: list[int], reference: list[int]) -> float:
    return float(kaldialign.edit_distance(reference, hypothesis)["total"])


@quick
@given(pairs=sequence_pairs())
def test_against_kaldialign(pairs: SequencePairs) -> None:
    distances = edit_distance(*pairs)
    assert distances.dtype == torch.float32
    assert distances.tolist() == [errors(*pair) for pair in pairs.pairs()]


@pytest.mark.parametrize(("hypothesis_length", "reference_length"), [(40, 300), (300, 40), (200, 200)])
def test_long_sequences(hypothesis_length: int, reference_length: int) -> None:
    g = torch.Generator().manual_seed(0)
    pairs = SequencePairs(
        torch.randint(0, 5, (6, hypothesis_length), generator=g),
        torch.randint(0, 5, (6, reference_length), generator=g),
        torch.randint(0, hypothesis_length + 1, (6,), generator=g),
        torch.randint(0, reference_length + 1, (6,), generator=g),
    )
    assert edit_distance(*pairs).tolist() == [errors(*pair) for pair in pairs.pairs()]


def test_empty_sides() -> None:
    pairs = SequencePairs(
        torch.tensor([[1, 2], [1, 2], [1, 2]]), torch.tensor([[3, 3, 3]] * 3), torch.tensor([0, 2, 0]),
        torch.tensor([3, 0, 0]),
    )  # fmt: skip
    assert edit_distance(*pairs).tolist() == [3.0, 2.0, 0.0]


def test_no_columns_and_no_utterances() -> None:
    nothing = torch.zeros(2, 0, dtype=torch.int64)
    some = torch.tensor([[1, 2, 3], [4, 5, 6]])
    zero, three = torch.tensor([0, 0]), torch.tensor([3, 3])
    assert edit_distance(nothing, some, zero, three).tolist() == [3.0, 3.0]
    assert edit_distance(some, nothing, three, zero).tolist() == [3.0, 3.0]
    assert edit_distance(nothing, nothing, zero, zero, label_map=[0]).tolist() == [0.0, 0.0]
    empty = edit_distance(some[:0], some[:0], three[:0], three[:0], label_map=[0])
    assert empty.shape == (0,)
    assert edit_distance(some[:0], some[:0], three[:0], three[:0], reduction="targets").item() == 0.0


@quick
@given(
    pairs=sequence_pairs(),
    entries=hs.lists(hs.one_of(hs.none(), hs.integers(0, 5)), min_size=4, max_size=4),
    mapping=hs.booleans(),
)
def test_label_map(pairs: SequencePairs, entries: list[int | None], mapping: bool) -> None:
    """On both sides, before they are compared; None deletes."""
    label_map: LabelMap = dict(enumerate(entries)) if mapping else entries

    def mapped(labels: list[int]) -> list[int]:
        return [new for label in labels if (new := entries[label]) is not None]

    expected = [errors(mapped(hypothesis), mapped(reference)) for hypothesis, reference in pairs.pairs()]
    assert edit_distance(*pairs, label_map=label_map).tolist() == expected


@pytest.mark.parametrize("reduction", ["none", "sum", "batch", "targets"])
@pytest.mark.parametrize("label_map", [None, [0, None, 2, 2]])
def test_reductions(reduction: str, label_map: list[int | None] | None) -> None:
    distances = edit_distance(**GOOD, label_map=label_map)
    divisor = {"none": 1, "sum": 1, "batch": 2, "targets": 3}[reduction]
    expected = distances if reduction == "none" else distances.sum() / divisor
    assert torch.equal(edit_distance(**GOOD, label_map=label_map, reduction=reduction), expected)
    module = EditDistance(label_map=label_map, reduction=reduction)
    assert torch.equal(module(*GOOD.values()), expected)


def test_the_module() -> None:
    module = EditDistance()
    assert repr(module) == "EditDistance(reduction='batch')"
    assert torch.equal(module(*GOOD.values()), edit_distance(**GOOD).sum() / 2)
    mapped = EditDistance(label_map={1: None, 0: 0, 2: 1, 3: 1}, reduction="none")
    assert repr(mapped) == "EditDistance(label_map of 4 labels, reduction='none')"
    assert mapped.state_dict() == {}
    for other in (pickle.loads(pickle.dumps(mapped)), copy.deepcopy(mapped)):
        assert repr(other) == repr(mapped)
        assert torch.equal(other(*GOOD.values()), mapped(*GOOD.values()))


@pytest.mark.parametrize(("changes", "error", "argument", "message"), BAD_SEQUENCES)
def test_bad_input(changes: dict[str, Any], error: type[ArgumentError], argument: str, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        edit_distance(**GOOD | changes)
    assert type(caught.value) is error
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        ({0: 0, 2: 1}, r"label_map has 2 keys, which must be 0 … 1, but 1 is missing"),
        ({1: 0}, r"label_map has 1 keys, which must be 0 … 0, but 0 is missing"),
        ([0, -1], "label_map leads from 1 to -1, which must be a label, 0 or above, or None"),
        ([0, -2], "label_map leads from 1 to -2"),
        ([0, 1.5], r"label_map leads from 1 to 1\.5"),
        (["a"], "label_map leads from 0 to 'a'"),
    ],
)
def test_bad_label_maps(label_map: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        edit_distance(**GOOD, label_map=label_map)
    assert caught.value.argument == "label_map"
    with pytest.raises(ArgumentError, match=message):
        EditDistance(label_map=label_map)


@pytest.mark.parametrize(
    ("changes", "label_map", "argument", "place"),
    [
        ({}, [0, 1, 2], "hypotheses", (0, 2, 3, 3)),
        ({"hypotheses": torch.tensor([[1, 2, 0], [2, 0, 0]])}, [0, 1, 2], "references", (0, 1, 3, 3)),
        ({"hypotheses": torch.tensor([[1, 2, 0], [2, -1, 0]])}, [0] * 4, "hypotheses", (1, 1, -1, 4)),
        ({}, {}, "hypotheses", (0, 0, 1, 0)),
    ],
)
def test_labels_that_the_map_lacks(
    changes: dict[str, Any], label_map: LabelMap, argument: str, place: tuple[int, int, int, int]
) -> None:
    b, u, label, num_labels = place
    message = (
        rf"{argument}\[{b}, {u}\] = {label} is not in label_map, which has the labels 0 … {num_labels - 1}"
    )
    with pytest.raises(LabelError, match=message) as caught:
        edit_distance(**GOOD | changes, label_map=label_map)
    error = caught.value
    assert (error.utterance, error.position, error.label, error.num_labels) == place
    assert error.argument == argument
