"""OpenFst's text format (`fstprint`, `fstcompile`)."""

from __future__ import annotations

import numpy as np
import torch

from seqtrain.errors import ArgumentError, FsaError
from seqtrain.fsa._text import (
    built,
    check_dense,
    check_dtype,
    label_field,
    numbered_fields,
    state_field,
    weight_field,
    weight_texts,
)
from seqtrain.fsa.automaton import Fsa

__all__ = ["from_openfst_text", "to_openfst_text"]


def _check_offset(label_offset: int) -> None:
    if not 0 <= label_offset <= 1:
        raise ArgumentError(
            f"label_offset must be 1 (0 is epsilon) or 0 (no epsilon), got {label_offset}",
            argument="label_offset",
        )


def _label(field: str, *, line: int, label_offset: int) -> int:
    label = label_field(field, line=line) - label_offset
    if label < 0:
        raise FsaError(
            f"line {line}: label 0 is epsilon, which consumes no frame: remove epsilons first "
            "(fstrmepsilon), or pass label_offset=0 if 0 stands for column 0 here",
            line=line,
        )
    return label


def from_openfst_text(
    text: str, *, label_offset: int = 1, acceptor: bool = True, dtype: torch.dtype = torch.float32
) -> Fsa:
    """Read an automaton from OpenFst's text: lines `source destination label [cost]` and `final-state
    [cost]`.

    The state of the first line is the start. Costs are -log; without one the weight is 0. An arc of cost
    `Infinity` is forbidden, a state of final cost `Infinity` isn't final. State numbers are kept, and so is
    the order of the arcs.

    Args:
        text: the whole text; blank lines are passed over.
        label_offset: what to subtract from a label to get the column of the scores. 1: labels count from 1,
            and 0 is epsilon. 0: labels are columns, there is no epsilon.
        acceptor: False reads a transducer's lines `source destination input output [cost]` and drops the
            outputs.
        dtype: of the weights, torch.float32 or torch.float64.

    Raises:
        FsaError: names the line: not of this form, an epsilon, a weight that isn't finite in `dtype`, a final
            state given twice, states numbered with large gaps. Also for a text without any line.
        ArgumentError: another label_offset or dtype.
    """
    _check_offset(label_offset)
    check_dtype(dtype)
    arcs: list[tuple[int, int, int]] = []
    weights: list[float] = []
    final: dict[int, float] = {}
    start = highest = highest_line = -1
    lines = 0
    fixed = 3 if acceptor else 4
    for line, fields in numbered_fields(text):
        lines += 1
        states = [state_field(field, line=line) for field in fields[: 2 if len(fields) > 2 else 1]]
        if start < 0:
            start = states[0]
        if max(states) > highest:
            highest, highest_line = max(states), line
        if len(fields) <= 2:
            cost = fields[1] if len(fields) == 2 else "0"
            weight = weight_field(cost, line=line, sign=-1, dtype=dtype)
            if states[0] in final:
                raise FsaError(
                    f"line {line}: final state {states[0]} is given twice", line=line, state=states[0]
                )
            if weight > -np.inf:
                final[states[0]] = weight
        elif len(fields) in (fixed, fixed + 1):
            arcs.append((states[0], states[1], _label(fields[2], line=line, label_offset=label_offset)))
            if not acceptor:
                label_field(fields[3], line=line)
            cost = fields[fixed] if len(fields) > fixed else "0"
            weights.append(weight_field(cost, line=line, sign=-1, dtype=dtype))
        else:
            hint = "; for a transducer pass acceptor=False" if acceptor and len(fields) == 5 else ""
            raise FsaError(
                f"line {line}: {len(fields)} fields, but an arc has {fixed} or {fixed + 1}, "
                f"a final state 1 or 2{hint}",
                line=line,
            )
    if start < 0:
        raise FsaError("the text is empty: an automaton has at least its start state")
    check_dense(highest, line=highest_line, lines=lines)
    return built(arcs, weights, num_states=highest + 1, start=start, final=final, dtype=dtype)


def to_openfst_text(fsa: Fsa, *, label_offset: int = 1) -> str:
    """Write an automaton as OpenFst's text; `from_openfst_text` reads back the same one.

    Arcs stand in their order, then final states in theirs (those of weight -inf are left out, since they
    accept nothing). Where the first arc doesn't leave the start state, or a state occurs nowhere else, a line
    gives that state the final cost `Infinity`, which OpenFst takes as "not final".

    Args:
        fsa: the automaton.
        label_offset: what to add to a column of the scores to get the label, 1 or 0.

    Raises:
        ArgumentError: another label_offset.
        FsaError: a label that is too large for the offset.
    """
    _check_offset(label_offset)
    table = fsa.arcs.numpy().astype(np.int64)
    too_large = np.flatnonzero(table[:, 2] + label_offset > np.iinfo(np.int32).max)
    if too_large.size:
        arc = int(too_large[0])
        raise FsaError(f"arc {arc}: label {table[arc, 2]} plus {label_offset} is too large", arc=arc)
    arcs = table.tolist()
    costs = weight_texts(fsa.weights, sign=-1, infinity="Infinity")
    lines = [
        f"{source}\t{destination}\t{label + label_offset}\t{cost}"
        for (source, destination, label), cost in zip(arcs, costs, strict=True)
    ]
    finals = [
        (state, cost)
        for state, cost in zip(
            fsa.final_states.tolist(), weight_texts(fsa.final_weights, sign=-1, infinity=""), strict=True
        )
        if cost
    ]
    first = arcs[0][0] if arcs else finals[0][0] if finals else None
    if first != fsa.start:
        lines.insert(0, f"{fsa.start}\tInfinity")
    lines += [f"{state}\t{cost}" for state, cost in finals]
    mentioned = np.zeros(fsa.num_states, dtype=bool)
    mentioned[table[:, :2].ravel()] = True
    mentioned[[fsa.start, *(state for state, _ in finals)]] = True
    lines += [f"{state}\tInfinity" for state in np.flatnonzero(~mentioned)]
    return "\n".join(lines) + "\n"
