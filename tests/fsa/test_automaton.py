"""One automaton: what is kept, what is refused, and with which message."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from seqtrain.errors import DtypeError, FsaError, ShapeError
from seqtrain.fsa import Fsa


def test_defaults() -> None:
    fsa = Fsa([[0, 1, 3], [1, 2, 0]])
    assert fsa.num_states == 3
    assert fsa.start == 0
    assert fsa.arcs.dtype == torch.int32
    assert fsa.weights.tolist() == [0.0, 0.0]
    assert fsa.weights.dtype == torch.float32
    assert fsa.final_states.tolist() == [2]
    assert fsa.final_weights.tolist() == [0.0]


def test_keeps_the_order_of_arcs_and_of_final_states() -> None:
    arcs = [[2, 0, 1], [0, 2, 5], [0, 1, 5], [2, 0, 1]]
    fsa = Fsa(arcs, [1.0, 2.0, 3.0, 4.0], start=2, final={2: -1.0, 0: -0.5})
    assert fsa.arcs.tolist() == arcs
    assert fsa.weights.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert fsa.final_states.tolist() == [2, 0]
    assert fsa.final_weights.tolist() == [-1.0, -0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_callers_weight_tensor(dtype: torch.dtype) -> None:
    weights = torch.zeros(1, dtype=dtype, requires_grad=True)
    final = torch.zeros(1, dtype=dtype, requires_grad=True)
    fsa = Fsa([[0, 1, 0]], weights, final=([1], final))
    assert fsa.weights is weights
    assert fsa.final_weights is final


def test_half_precision_weights_become_float32_and_pass_gradients() -> None:
    weights = torch.zeros(1, dtype=torch.bfloat16, requires_grad=True)
    fsa = Fsa([[0, 1, 0]], weights)
    assert fsa.weights.dtype == torch.float32
    fsa.weights.sum().backward()
    assert weights.grad is not None


@pytest.mark.parametrize("kind", [np.int64, np.uint32, np.int8])
def test_takes_arrays_of_any_integer_dtype(kind: type) -> None:
    arcs = np.array([[0, 1, 2]], dtype=kind)
    fsa = Fsa(arcs)
    arcs[:] = 100
    assert fsa.arcs.tolist() == [[0, 1, 2]], "the automaton has its own copy"
    assert Fsa(torch.tensor([[0, 1, 2]], dtype=torch.uint8)).arcs.tolist() == [[0, 1, 2]]


def test_a_single_state_without_arcs_accepts_the_empty_sequence() -> None:
    assert Fsa([]).min_length() == 0
    assert Fsa([], final={}).min_length() == -1


def test_survives_pickle_and_deepcopy() -> None:
    fsa = Fsa([[0, 1, 2]], torch.tensor([0.5], requires_grad=True), num_states=4, start=0, final={1: -2.0})
    fsa.derived["layout"] = object()
    for clone in (pickle.loads(pickle.dumps(fsa)), copy.deepcopy(fsa)):
        assert clone.equal(fsa)
        assert clone.weights.requires_grad
        assert clone.derived == {}
    assert not fsa.equal(Fsa([[0, 1, 2]]))


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"arcs": [[0, 1, 0], [0, 5, 1]], "num_states": 2},
        FsaError,
        r"arc 1 \(0 → 5, label 1\).*destination state 5",
    ),
    ({"arcs": [[-1, 0, 1]]}, FsaError, r"arc 0 .*source state -1 is outside the 1 states 0…0"),
    ({"arcs": [[0, 1, -1]]}, FsaError, r"arc 0 \(0 → 1, label -1\): the label is negative.*no epsilon"),
    ({"arcs": [[0, 1, 1]], "weights": [np.nan]}, FsaError, "arc 0 has the weight nan"),
    ({"arcs": [[0, 1, 1]], "weights": [np.inf]}, FsaError, "arc 0 has the weight inf"),
    ({"arcs": [[0, 1, 1]], "final": {1: np.nan}}, FsaError, "state 1 has the final weight nan"),
    (
        {"arcs": [[0, 1, 1]], "final": {3: 0.0}, "num_states": 2},
        FsaError,
        "final state 3 is outside the 2 states",
    ),
    ({"arcs": [[0, 1, 1]], "final": {-1: 0.0}}, FsaError, "final state -1 is outside"),
    ({"arcs": [[0, 1, 1]], "final": ([1, 1], [0.0, 0.0])}, FsaError, "final state 1 is given twice"),
    ({"arcs": [[0, 1, 1]], "start": 7, "num_states": 2}, FsaError, "start state 7 is outside the 2 states"),
    ({"arcs": [[0, 1, 1]], "start": -1}, FsaError, "start state -1"),
    ({"arcs": [], "num_states": 0}, FsaError, "num_states is 0"),
    ({"arcs": [], "num_states": 2**31}, FsaError, "num_states is 2147483648"),
    ({"arcs": [[0, 1]]}, ShapeError, r"arcs must have the shape \(any, 3\), got \(1, 2\)"),
    ({"arcs": [[0, 1, 1], [0, 1]]}, ShapeError, "arcs must be rectangular"),
    (
        {"arcs": [[0, 1, 1]], "weights": [0.0, 0.0]},
        ShapeError,
        r"weights must have the shape \(1,\), got \(2,\)",
    ),
    ({"arcs": [[0, 1.5, 1]]}, DtypeError, "arcs must hold integers, got dtype float64"),
    ({"arcs": torch.zeros(1, 3)}, DtypeError, "arcs must hold integers, got dtype torch.float32"),
    ({"arcs": [[0, 1, 2**40]]}, DtypeError, "arcs holds 1099511627776, which doesn't fit int32"),
    (
        {"arcs": [[0, 1, 1]], "weights": torch.zeros(1, dtype=torch.complex64)},
        DtypeError,
        "weights must hold floats",
    ),
    (
        {"arcs": [[0, 1, 1]], "weights": [-1e300]},
        DtypeError,
        r"weights holds -1e\+300, which doesn't fit float32",
    ),
    (
        {"arcs": [[0, 1, 1]], "final": {1: -1e300}},
        DtypeError,
        r"final holds a value that doesn't fit torch\.float32",
    ),
    ({"arcs": [[0, 1, 1]], "weights": ["a"]}, DtypeError, "weights must hold floats"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED)
def test_refuses(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Fsa(**arguments)


def test_an_error_carries_arc_and_state() -> None:
    with pytest.raises(FsaError) as caught:
        Fsa([[0, 1, 0], [1, 9, 0]], num_states=2)
    assert (caught.value.sequence, caught.value.arc, caught.value.state) == (0, 1, 9)
