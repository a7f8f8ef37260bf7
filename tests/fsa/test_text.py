"""OpenFst's and k2's text: round trips, meaning, and errors that name the line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqtrain.errors import ArgumentError, FsaError
from seqtrain.fsa import Fsa, from_k2_text, from_openfst_text, to_k2_text, to_openfst_text
from tests.fsa.strategies import automata, quick


def without_forbidden_finals(fsa: Fsa) -> Fsa:
    keep = fsa.final_weights > -math.inf
    final = (fsa.final_states[keep], fsa.final_weights[keep])
    return Fsa(fsa.arcs, fsa.weights, num_states=fsa.num_states, start=fsa.start, final=final)


@quick
@given(automata(), st.sampled_from([0, 1]))
def test_openfst_round_trip(fsa: Fsa, offset: int) -> None:
    text = to_openfst_text(fsa, label_offset=offset)
    assert from_openfst_text(text, label_offset=offset).equal(without_forbidden_finals(fsa))


@quick
@given(automata(dtype=torch.float64))
def test_openfst_round_trip_in_double(fsa: Fsa) -> None:
    again = from_openfst_text(to_openfst_text(fsa), dtype=torch.float64)
    assert again.equal(without_forbidden_finals(fsa))


@quick
@given(automata())
def test_k2_round_trip(fsa: Fsa) -> None:
    order = np.argsort(fsa.arcs[:, 0].numpy(), kind="stable")
    final_order = np.argsort(fsa.final_states.numpy())
    canonical = Fsa(
        fsa.arcs[order],
        fsa.weights[order],
        num_states=fsa.num_states,
        final=(fsa.final_states[final_order], fsa.final_weights[final_order]),
    )
    text = to_k2_text(canonical)
    assert from_k2_text(text).equal(canonical)
    if fsa.start == 0:
        assert to_k2_text(fsa) == text
    else:
        with pytest.raises(FsaError, match=f"the start is state {fsa.start}, but k2 starts at state 0"):
            to_k2_text(fsa)


def test_openfst_meaning() -> None:
    fsa = from_openfst_text("2 0 1 0.5\n\n0\t1\t4\r\n0 0 4 Infinity\n1 1.5\n0\n")
    assert fsa.start == 2
    assert fsa.num_states == 3
    assert fsa.arcs.tolist() == [[2, 0, 0], [0, 1, 3], [0, 0, 3]]
    assert fsa.weights.tolist() == [-0.5, 0.0, -math.inf]
    assert fsa.final_states.tolist() == [1, 0]
    assert fsa.final_weights.tolist() == [-1.5, 0.0]


def test_openfst_transducers_and_labels_without_epsilon() -> None:
    fsa = from_openfst_text("0 1 0 7 0.25\n1 1 2 0\n1", acceptor=False, label_offset=0)
    assert fsa.arcs.tolist() == [[0, 1, 0], [1, 1, 2]]
    assert fsa.weights.tolist() == [-0.25, 0.0]


def test_openfst_writes_what_the_format_has_no_word_for() -> None:
    fsa = Fsa([[1, 0, 2]], [-0.5], num_states=4, start=2, final={0: 0.0, 3: -math.inf})
    assert to_openfst_text(fsa) == "2\tInfinity\n1\t0\t3\t0.5\n0\t0.0\n3\tInfinity\n"


def test_k2_meaning() -> None:
    fsa = from_k2_text("0 1 5 -0.5\n0 3 -1 -2\n1 1 0\n1 3 -1\n3\n")
    assert fsa.start == 0
    assert fsa.num_states == 3
    assert fsa.arcs.tolist() == [[0, 1, 5], [1, 1, 0]]
    assert fsa.weights.tolist() == [-0.5, 0.0]
    assert dict(zip(fsa.final_states.tolist(), fsa.final_weights.tolist(), strict=True)) == {0: -2.0, 1: 0.0}
    assert to_k2_text(fsa) == "0 1 5 -0.5\n0 3 -1 -2.0\n1 1 0 0.0\n1 3 -1 0.0\n3\n"


def test_k2_auxiliary_labels_are_dropped() -> None:
    fsa = from_k2_text("0 1 5 9 8 -0.5\n1 2 -1 -1 -1\n2", num_aux_labels=2)
    assert fsa.arcs.tolist() == [[0, 1, 5]]
    assert fsa.weights.tolist() == [-0.5]


OPENFST: list[tuple[str, dict[str, Any], int | None, str]] = [
    ("", {}, None, "the text is empty"),
    ("0 1 2\n0 1 0\n1", {}, 2, "line 2: label 0 is epsilon.*fstrmepsilon"),
    ("0 1 2 3 0.5", {}, 1, "line 1: 5 fields, but an arc has 3 or 4.*pass acceptor=False"),
    ("0 1 2", {"acceptor": False}, 1, "line 1: 3 fields, but an arc has 4 or 5"),
    ("0 1 2 x\n", {}, 1, "line 1: the weight 'x' is not a number"),
    ("0 1 2 1_0\n", {}, 1, "line 1: the weight '1_0' is not a number"),
    ("0 1 2 nan\n", {}, 1, "line 1: the weight 'nan' stands for no probability"),
    ("0 1 2 -Infinity\n", {}, 1, "line 1: the weight '-Infinity' stands for no probability"),
    ("0 1 2 1e39\n", {}, 1, "line 1: the weight '1e39' is too large for torch.float32"),
    (
        "0 1 2\n1 1e999\n",
        {"dtype": torch.float64},
        2,
        "line 2: the weight '1e999' is too large for torch.float64",
    ),
    ("0 -1 2\n", {}, 1, "line 1: a state must be a whole number"),
    ("0 1 -2\n", {}, 1, "line 1: a label must be a whole number"),
    ("0 1 ٣\n", {}, 1, "line 1: a label must be a whole number"),
    ("0 1 9999999999\n", {}, 1, "line 1: a label must be a whole number"),
    ("0 2147483647 1\n", {}, 1, "line 1: state 2147483647 is too large"),
    ("0 1 1\n\n0 2000000 1\n", {}, 3, "line 3: state 2000000 in a text of 2 lines"),
    ("0 1 1\n1\n1 0.5\n", {}, 3, "line 3: final state 1 is given twice"),
    ("0 1 1 2 3 4\n", {}, 1, "line 1: 6 fields"),
]


@pytest.mark.parametrize(("text", "options", "line", "message"), OPENFST)
def test_openfst_refuses(text: str, options: dict[str, Any], line: int | None, message: str) -> None:
    with pytest.raises(FsaError, match=message) as caught:
        from_openfst_text(text, **options)
    assert caught.value.line == line


K2: list[tuple[str, dict[str, Any], int, str]] = [
    ("", {}, 1, "line 1: the last line must be the final state alone"),
    ("0 1 -1\n", {}, 1, "line 1: the last line must be the final state alone"),
    ("0\n", {}, 1, "line 1: the final state is 0, which is the start"),
    ("0 1 2\n1\n", {}, 1, "line 1: 0 → 1 with label 2: label -1 belongs"),
    ("0 1 -1\n1 2 -1\n2\n", {}, 1, "line 1: 0 → 1 with label -1: label -1 belongs"),
    ("0 1 2 3 0.5\n1\n", {}, 1, "line 1: 5 fields, but an arc has 3 or 4 with num_aux_labels=0"),
    ("0 1 2\n1\n1 2 -1\n2\n", {}, 2, "line 2: 1 fields"),
    ("1 0 2\n0 2 -1\n2\n", {}, 2, "line 2: source 0 after source 1"),
    ("0 1 2\n2 1 0\n2\n", {}, 2, "line 2: 2 → 1, but 2 is the final state"),
    ("0 4 2\n2\n", {}, 1, "line 1: 0 → 4, but 2 is the final state"),
    ("0 1 -1\n0 1 -1\n1\n", {}, 2, "line 2: a second arc from state 0 into the final state"),
    ("0 1 -1 inf\n1\n", {}, 1, "line 1: the weight 'inf' stands for no probability"),
    ("0 1 x\n2\n", {}, 1, "line 1: a label must be a whole number"),
    ("0 3000 -1\n3000\n", {}, 2, "line 2: state 3000 in a text of 2 lines"),
]


@pytest.mark.parametrize(("text", "options", "line", "message"), K2)
def test_k2_refuses(text: str, options: dict[str, Any], line: int, message: str) -> None:
    with pytest.raises(FsaError, match=message) as caught:
        from_k2_text(text, **options)
    assert caught.value.line == line


def test_options_are_checked() -> None:
    with pytest.raises(ArgumentError, match=r"label_offset must be 1 .* got 2"):
        from_openfst_text("0", label_offset=2)
    with pytest.raises(ArgumentError, match=r"dtype must be torch\.float32 or torch\.float64"):
        from_openfst_text("0", dtype=torch.float16)
    with pytest.raises(ArgumentError, match="num_aux_labels is -1"):
        from_k2_text("1", num_aux_labels=-1)
    with pytest.raises(FsaError, match="arc 0: label 2147483647 plus 1 is too large"):
        to_openfst_text(Fsa([[0, 1, 2**31 - 1]]))
