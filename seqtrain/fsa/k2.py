"""k2's graphs (`k2.Fsa`, an Fsa or an FsaVec) turned into ours and back: the one place that imports k2.

k2 starts at state 0 and has one final state, the highest, which arcs of label -1 enter without consuming a frame. Here
such an arc is the final weight of its source, and k2's final state is none. Scores are log weights on both sides,
larger is better. Label 0 is column 0, as in k2's dense intersection: there is no epsilon.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seqtrain.errors import DataError, DtypeError, FsaError, MissingDependencyError, ShapeError
from seqtrain.fsa._arrays import int32_array, match_dtype
from seqtrain.fsa.automaton import Fsa
from seqtrain.fsa.batch import FsaBatch

__all__ = [
    "K2Attributes",
    "as_automata",
    "from_k2",
    "k2_attributes",
    "k2_module",
    "load_k2",
    "save_k2",
    "to_k2",
]

_FINAL_LABEL = -1


@dataclass(frozen=True)
class K2Attributes:
    """What k2 keeps of each arc beside source, destination, label and score, and of the graph as a whole.

    Attributes:
        arcs: by name, one value an arc, in our order: a tensor (ΣA, …), or lists where k2 has a ragged tensor.
        finals: the same names, of the arcs into k2's final state, one value a final state.
        graph: what isn't of the arcs, such as symbol tables; passed on as it is.
    """

    arcs: Mapping[str, torch.Tensor | list[Any]] = field(default_factory=dict)
    finals: Mapping[str, torch.Tensor | list[Any]] = field(default_factory=dict)
    graph: Mapping[str, Any] = field(default_factory=dict)


def k2_module() -> Any:
    """k2 itself.

    Raises:
        MissingDependencyError: it isn't there, or not the build for this very torch.
    """
    try:
        return importlib.import_module("k2")
    except ImportError as error:
        # k2 raises this, too, where torch isn't the very release that it was compiled for.
        raise MissingDependencyError("k2", extra="k2") from error


def _is_k2(graph: object) -> bool:
    """Whether it's a `k2.Fsa`: nobody can hold one who hasn't imported k2."""
    module = sys.modules.get("k2")
    return module is not None and isinstance(graph, module.Fsa)


def as_automata(fsa: Any, *, argument: str = "fsa") -> FsaBatch | Fsa:
    """What a criterion was given as its automata, with k2's converted: a `k2.Fsa` is an `Fsa`, an FsaVec an `FsaBatch`.

    Raises:
        DtypeError: anything else. FsaError: as `from_k2`.
    """
    if isinstance(fsa, (FsaBatch, Fsa)):
        return fsa
    if _is_k2(fsa):
        return from_k2(fsa)
    raise DtypeError(
        f"{argument} must be an FsaBatch, an Fsa or a k2.Fsa, got {type(fsa).__name__}", argument=argument
    )


@dataclass(frozen=True)
class _Layout:
    """Where in k2's arcs ours and the final ones lie.

    Attributes:
        arcs: (ΣA + ΣF, 3) int64 source, destination, label; states local to each graph.
        ours, finals: rows of the arcs that consume a frame, and of those into a final state.
        arc_splits: (G + 1,) of k2's arcs. num_states: (G,) k2's, its final state included.
    """

    arcs: NDArray[np.int64]
    ours: NDArray[np.int64]
    finals: NDArray[np.int64]
    arc_splits: NDArray[np.int64]
    num_states: NDArray[np.int64]


def _layout(graph: Any) -> _Layout:
    if not _is_k2(graph):
        raise DtypeError(f"graph must be a k2.Fsa, got {type(graph).__name__}", argument="graph")
    table = graph.arcs.values()[:, :3].cpu().numpy().astype(np.int64)
    if len(graph.shape) == 2:
        state_splits = np.array([0, graph.shape[0]], dtype=np.int64)
        arc_row_splits = graph.arcs.row_splits(1)
    else:
        state_splits = graph.arcs.row_splits(1).cpu().numpy().astype(np.int64)
        arc_row_splits = graph.arcs.row_splits(2)
    arc_splits = arc_row_splits.cpu().numpy().astype(np.int64)[state_splits]
    num_states = np.diff(state_splits)
    last = np.repeat(num_states - 1, np.diff(arc_splits))
    final = table[:, 2] == _FINAL_LABEL
    wrong = np.flatnonzero((table[:, 1] == last) != final)
    if wrong.size:
        row = int(wrong[0])
        sequence = int(np.searchsorted(arc_splits, row, side="right")) - 1
        source, destination, label = (int(value) for value in table[row])
        raise FsaError(
            f"automaton {sequence}: arc {row - arc_splits[sequence]} ({source} → {destination}, label {label}): "
            f"label -1 belongs to the arcs into the final state {num_states[sequence] - 1}, and to no other",
            sequence=sequence,
            arc=int(row - arc_splits[sequence]),
            state=source,
        )
    return _Layout(table, np.flatnonzero(~final), np.flatnonzero(final), arc_splits, num_states)


def _select(values: torch.Tensor, rows: NDArray[np.int64]) -> torch.Tensor:
    return values[torch.from_numpy(rows).to(values.device)]


def from_k2(graph: Any) -> Fsa | FsaBatch:
    """The automaton of a single `k2.Fsa`, or the batch of an FsaVec; gradients reach `graph.scores`.

    State numbers are kept, and so is the order of the arcs. A graph without states accepts nothing. Where many batches
    use one graph, convert it once and pass the result.

    Raises:
        FsaError: names graph and arc: label -1 elsewhere than into the final state, two arcs from one state into it
            (which sum and best path would have to merge differently), a score that is NaN or +inf.
        DtypeError: not a `k2.Fsa`.
    """
    layout = _layout(graph)
    sources = layout.arcs[layout.finals, 0]
    final_splits = np.searchsorted(layout.finals, layout.arc_splits)
    sequence = np.repeat(np.arange(len(layout.num_states)), np.diff(final_splits))
    twice = np.flatnonzero((sources[1:] == sources[:-1]) & (sequence[1:] == sequence[:-1]))
    if twice.size:
        row, state = int(layout.finals[twice[0] + 1]), int(sources[twice[0]])
        g = int(sequence[twice[0]])
        raise FsaError(
            f"automaton {g}: arc {row - layout.arc_splits[g]} is the second from state {state} into the final "
            "state: make one of them, by k2.determinize for example",
            sequence=g,
            arc=int(row - layout.arc_splits[g]),
            state=state,
        )
    scores = graph.scores
    batch = FsaBatch(
        layout.arcs[layout.ours],
        _select(scores, layout.ours),
        final_states=sources,
        final_weights=_select(scores, layout.finals),
        starts=np.zeros(len(layout.num_states), dtype=np.int64),
        num_states=np.maximum(layout.num_states - 1, 1),
        arc_offsets=np.searchsorted(layout.ours, layout.arc_splits),
        final_offsets=final_splits,
    )
    return batch[0] if len(graph.shape) == 2 else batch


def k2_attributes(graph: Any) -> K2Attributes:
    """Auxiliary labels and all other attributes of a `k2.Fsa`, in the order of `from_k2`; gradients reach them.

    Raises:
        DtypeError: not a `k2.Fsa`. FsaError: as `from_k2`.
    """
    layout = _layout(graph)
    arcs: dict[str, torch.Tensor | list[Any]] = {}
    finals: dict[str, torch.Tensor | list[Any]] = {}
    for name, value in graph.named_tensor_attr(include_scores=False):
        if isinstance(value, torch.Tensor):
            arcs[name], finals[name] = _select(value, layout.ours), _select(value, layout.finals)
        else:
            rows = value.tolist()
            arcs[name], finals[name] = [rows[i] for i in layout.ours], [rows[i] for i in layout.finals]
    # k2 counts here how often labels were written, for its own caches.
    graph_wide = {name: value for name, value in graph.named_non_tensor_attr() if name != "labels_version"}
    return K2Attributes(arcs, finals, graph_wide)


def to_k2(automata: Fsa | FsaBatch, *, attributes: K2Attributes | None = None) -> Any:
    """The automaton as a `k2.Fsa`, or the batch as an FsaVec, with a final state behind the others of each.

    k2 wants sources that don't fall: arcs are in the order of their sources, arcs of one source in their own order, the
    arc into the final state last. Scores are float32, all that k2 has; gradients of `scores` reach the weights.

    Args:
        automata: on any device, where the result lies, too.
        attributes: of all arcs and final states, as `k2_attributes` has them.

    Raises:
        FsaError: a start other than state 0, as it always is in k2.
        DtypeError: a weight that doesn't fit float32. ShapeError: attributes of another number of arcs.
        MissingDependencyError: k2 isn't there, or not the build for this very torch.
    """
    k2 = k2_module()
    single = isinstance(automata, Fsa)
    batch = FsaBatch.from_list([automata]) if isinstance(automata, Fsa) else automata
    starts = batch.starts.cpu().numpy()
    moved = np.flatnonzero(starts)
    if moved.size:
        g = int(moved[0])
        raise FsaError(
            f"automaton {g}: the start is state {starts[g]}, but k2 starts at state 0",
            sequence=g,
            state=int(starts[g]),
        )
    table, order, state_splits, arc_splits = _k2_layout(batch)
    shape = k2.ragged.create_ragged_shape2(torch.from_numpy(arc_splits), None, len(table))
    if not single:
        graphs = k2.ragged.create_ragged_shape2(torch.from_numpy(state_splits), None, int(state_splits[-1]))
        shape = graphs.compose(shape)
    # k2 looks at the strides even of no arcs, where numpy's are 0.
    arcs = torch.empty(table.shape, dtype=torch.int32).copy_(torch.from_numpy(table))
    result = k2.Fsa(importlib.import_module("_k2").RaggedArc(shape, arcs)).to(batch.device)
    like = torch.empty(0, dtype=torch.float32, device=batch.device)
    rows = torch.from_numpy(order).to(batch.device)
    weights = torch.cat((batch.weights, batch.final_weights))
    result.scores = match_dtype(weights, like, argument="automata")[rows]
    _attach(k2, result, attributes or K2Attributes(), batch, rows)
    return result


def _k2_layout(batch: FsaBatch) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """k2's arcs (ΣA + ΣF, 4), where their weights lie in (weights, final weights), states of graphs, arcs of states."""
    arcs, finals = batch.arcs.cpu().numpy(), batch.final_states.cpu().numpy()
    ends = batch.num_states.cpu().numpy().astype(np.int64)
    state_splits = np.concatenate(([0], np.cumsum(ends + 1)))
    arc_graph, final_graph = (
        np.repeat(np.arange(len(batch)), np.diff(offsets.cpu().numpy()))
        for offsets in (batch.arc_offsets, batch.final_offsets)
    )
    table = np.zeros((len(arcs) + len(finals), 4), dtype=np.int32)
    table[: len(arcs), :3] = arcs
    table[len(arcs) :, 0] = finals
    table[len(arcs) :, 1] = ends[final_graph]
    table[len(arcs) :, 2] = _FINAL_LABEL
    sources = table[:, 0] + state_splits[np.concatenate((arc_graph, final_graph)).astype(np.int64)]
    order = np.argsort(sources, kind="stable")
    arc_splits = np.searchsorted(sources[order], np.arange(state_splits[-1] + 1))
    return (
        table[order],
        order,
        int32_array(state_splits, argument="automata"),
        int32_array(arc_splits, argument="automata"),
    )


def _attach(k2: Any, graph: Any, attributes: K2Attributes, batch: FsaBatch, rows: torch.Tensor) -> None:
    sizes = {"arcs": batch.arcs.shape[0], "finals": batch.final_states.shape[0]}
    for name, of_arcs in attributes.arcs.items():
        of_finals = attributes.finals.get(name, [])
        for part, values in (("arcs", of_arcs), ("finals", of_finals)):
            if len(values) != sizes[part]:
                raise ShapeError(
                    f"attributes.{part}[{name!r}] has {len(values)} values for {sizes[part]} {part}",
                    argument="attributes",
                )
        if isinstance(of_arcs, torch.Tensor) and isinstance(of_finals, torch.Tensor):
            setattr(graph, name, torch.cat((of_arcs, of_finals)).to(rows.device)[rows])
        else:
            joined = [*of_arcs, *of_finals]
            ragged = k2.RaggedTensor([joined[row] for row in rows.tolist()], dtype=torch.int32)
            setattr(graph, name, ragged.to(rows.device))
    for name, value in attributes.graph.items():
        setattr(graph, name, value)


def save_k2(automata: Fsa | FsaBatch, path: str | Path, *, aux_labels: torch.Tensor | None = None) -> None:
    """Saves what `k2.Fsa.from_dict(torch.load(path))` reads, with auxiliary labels (ΣA,) int32, -1 on final arcs.

    Raises:
        As `to_k2`.
    """
    finals = automata.final_states.shape[0]
    attributes = None
    if aux_labels is not None:
        last = torch.full((finals,), _FINAL_LABEL, dtype=torch.int32)
        attributes = K2Attributes({"aux_labels": aux_labels}, {"aux_labels": last})
    torch.save(to_k2(automata, attributes=attributes).as_dict(), path)


def load_k2(path: str | Path) -> tuple[Fsa | FsaBatch, K2Attributes]:
    """What k2 has saved (`torch.save(graph.as_dict(), path)`), and its attributes.

    Raises:
        DataError: missing, or something else. MissingDependencyError: no k2. FsaError: as `from_k2`.
    """
    k2 = k2_module()
    try:
        graph = k2.Fsa.from_dict(torch.load(path, map_location="cpu"))
    except (OSError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} isn't a graph that k2 has saved: {error}", path=str(path)) from error
    return from_k2(graph), k2_attributes(graph)
