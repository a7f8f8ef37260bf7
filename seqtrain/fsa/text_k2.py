"""k2's text format (`k2.Fsa.from_str`, `k2.to_str`)."""

from __future__ import annotations

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

__all__ = ["from_k2_text", "to_k2_text"]

_FINAL_LABEL = "-1"


def from_k2_text(text: str, *, num_aux_labels: int = 0, dtype: torch.dtype = torch.float32) -> Fsa:
    """Read an automaton from k2's text: lines `source destination label [score]`, then the final state alone.

    k2 starts at state 0 and has one final state, the highest, which arcs of label -1 enter without consuming
    a frame. Such an arc becomes the final weight of its source, and k2's final state disappears. Scores are
    log weights, larger is better; without one the weight is 0. Label 0 is column 0, as in k2's dense
    intersection. State numbers are kept, and so is the order of the arcs.

    Args:
        text: the whole text; blank lines are passed over.
        num_aux_labels: how many auxiliary labels follow the label; they are dropped.
        dtype: of the weights, torch.float32 or torch.float64.

    Raises:
        FsaError: names the line: not of this form, sources that fall, label -1 elsewhere than into the final
            state, two arcs from one state into it, arcs that leave it, a weight that isn't finite in `dtype`,
            states numbered with large gaps. Also for a text without final state.
        ArgumentError: negative num_aux_labels, another dtype.
    """
    check_dtype(dtype)
    if num_aux_labels < 0:
        raise ArgumentError(f"num_aux_labels is {num_aux_labels}", argument="num_aux_labels")
    lines = list(numbered_fields(text))
    if not lines or len(lines[-1][1]) != 1:
        where = lines[-1][0] if lines else 1
        raise FsaError(f"line {where}: the last line must be the final state alone", line=where)
    last_line, (last_field,) = lines.pop()
    end = state_field(last_field, line=last_line)
    if end == 0:
        raise FsaError(f"line {last_line}: the final state is 0, which is the start", line=last_line, state=0)
    check_dense(end, line=last_line, lines=len(lines) + 1)
    arcs: list[tuple[int, int, int]] = []
    weights: list[float] = []
    final: dict[int, float] = {}
    previous = 0
    fixed = 3 + num_aux_labels
    for line, fields in lines:
        if len(fields) not in (fixed, fixed + 1):
            raise FsaError(
                f"line {line}: {len(fields)} fields, but an arc has {fixed} or {fixed + 1} "
                f"with num_aux_labels={num_aux_labels}",
                line=line,
            )
        source, destination = (state_field(field, line=line) for field in fields[:2])
        if source < previous:
            raise FsaError(
                f"line {line}: source {source} after source {previous}: k2 wants sources not to fall",
                line=line,
            )
        previous = source
        if source >= end or destination > end:
            raise FsaError(
                f"line {line}: {source} → {destination}, but {end} is the final state: it must be the "
                "highest, and no arc may leave it",
                line=line,
                state=max(source, destination),
            )
        score = fields[fixed] if len(fields) > fixed else "0"
        weight = weight_field(score, line=line, sign=1, dtype=dtype)
        if (destination == end) != (fields[2] == _FINAL_LABEL):
            raise FsaError(
                f"line {line}: {source} → {destination} with label {fields[2]:.40}: label -1 belongs to the "
                f"arcs into the final state {end}, and to no other",
                line=line,
            )
        if destination != end:
            arcs.append((source, destination, label_field(fields[2], line=line)))
            weights.append(weight)
        elif source in final:
            raise FsaError(
                f"line {line}: a second arc from state {source} into the final state", line=line, state=source
            )
        else:
            final[source] = weight
    return built(arcs, weights, num_states=end, start=0, final=final, dtype=dtype)


def to_k2_text(fsa: Fsa) -> str:
    """Write an automaton as k2's text, with a final state added behind the others.

    k2 wants sources that don't fall: arcs are written in the order of their sources, arcs of one source in
    their own order, the arc into the final state last. `from_k2_text` therefore reads back the same arcs in
    this order (the same order, if sources don't fall), and final states in the order of their numbers.

    Raises:
        FsaError: the start isn't state 0, as it always is in k2.
    """
    if fsa.start != 0:
        raise FsaError(f"the start is state {fsa.start}, but k2 starts at state 0", state=fsa.start)
    scores = weight_texts(fsa.weights, sign=1, infinity="-inf")
    lines = [
        (source, f"{source} {destination} {label} {score}")
        for (source, destination, label), score in zip(fsa.arcs.tolist(), scores, strict=True)
    ]
    final_scores = weight_texts(fsa.final_weights, sign=1, infinity="-inf")
    lines += [
        (state, f"{state} {fsa.num_states} {_FINAL_LABEL} {score}")
        for state, score in zip(fsa.final_states.tolist(), final_scores, strict=True)
    ]
    lines.sort(key=lambda line: line[0])
    return "\n".join([*(text for _, text in lines), str(fsa.num_states)]) + "\n"
