"""What one does to graphs before training, by OpenFst: composition, determinization, minimization and the like.

All take an `Fsa` (its columns plus one are the labels, 0 is epsilon) or a `Wfst`, and return a `Wfst`; `.to_fsa()`
makes an automaton of it that criteria take. Where paths meet and their weights become one, `semiring` says how: "log"
adds their probabilities, which keeps `full_sum`; "tropical" keeps the best, which keeps `best_path`. What has no such
argument does neither. M. Mohri: Weighted automata algorithms, 2009.

"log" computes in double precision, "tropical" in OpenFst's float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import ArgumentError, FsaError
from seqtrain.fsa.automaton import Fsa
from seqtrain.fsa.openfst import from_openfst, pywrapfst, to_openfst
from seqtrain.fsa.wfst import Wfst

__all__ = [
    "closure",
    "compose",
    "concat",
    "connect",
    "determinize",
    "equivalent",
    "has_property",
    "intersect",
    "minimize",
    "push",
    "remove_epsilon",
    "reverse",
    "shortest_distance",
    "top_sort",
    "union",
]

Graph: TypeAlias = "Fsa | Wfst"

_DELTA = 1e-9
"""Weights closer than that are the same one; OpenFst's own 1e-3 would merge what differs audibly over 1000 frames."""
_DELTA_FLOAT = 1e-6


def _delta(semiring: str) -> float:
    return _DELTA if semiring == "log" else _DELTA_FLOAT


def _in_place(graph: Graph, semiring: str, operation: Callable[[Any], Any]) -> Wfst:
    fst = to_openfst(graph, semiring=semiring)
    return _result(lambda: operation(fst) or fst)


def _has(fst: Any, name: str) -> bool:
    """Whether the graph has the property, looked for if need be."""
    wanted = getattr(pywrapfst().FstProperties, name)
    return bool(fst.properties(wanted, True) & wanted)


def has_property(graph: Graph, name: str) -> bool:
    """Whether one of OpenFst's properties holds of the graph, such as "ACYCLIC" or "I_DETERMINISTIC"."""
    return _has(to_openfst(graph, semiring="log"), name)


def _result(operation: Callable[[], Any]) -> Wfst:
    """What OpenFst made of it.

    Raises:
        FsaError: OpenFst refuses, or has marked its result as wrong.
    """
    module = pywrapfst()
    try:
        fst = operation()
    except module.FstError as error:
        raise FsaError(f"OpenFst: {error}") from error
    if _has(fst, "ERROR"):
        raise FsaError(
            "OpenFst has failed and marked the result as wrong; its message is in the standard error"
        )
    return from_openfst(fst)


def compose(first: Graph, second: Graph) -> Wfst:
    """Every path of `first` whose output is an input of `second`: inputs of the one, outputs of the other."""
    left, right = to_openfst(first, semiring="log"), to_openfst(second, semiring="log")
    left.arcsort("olabel")
    # Each side has its own names of what meets in the middle, and OpenFst refuses tables that differ.
    left.set_output_symbols(None)
    right.set_input_symbols(None)
    return _result(lambda: pywrapfst().compose(left, right))


def intersect(first: Graph, second: Graph) -> Wfst:
    """The sequences that both accept, weights added.

    Raises:
        FsaError: one of them is a transducer.
    """
    for name, graph in (("first", first), ("second", second)):
        if isinstance(graph, Wfst) and not graph.is_acceptor:
            raise FsaError(
                f"{name} has output labels of its own: intersect takes acceptors, compose transducers"
            )
    return compose(first, second)


def connect(graph: Graph) -> Wfst:
    """Without the states that no path from the start to a final state visits."""
    return _in_place(graph, "log", lambda fst: fst.connect())


def top_sort(graph: Graph) -> Wfst:
    """States numbered so that arcs lead to higher ones.

    Raises:
        FsaError: there is a cycle.
    """
    fst = to_openfst(graph, semiring="log")
    if not _has(fst, "ACYCLIC"):
        raise FsaError("the graph has a cycle: there is no topological order of its states")
    return _result(lambda: fst.topsort() or fst)


def determinize(graph: Graph, *, semiring: str, max_states: int | None = None) -> Wfst:
    """At most one arc of each state for each input label; epsilons count as a label (`remove_epsilon` first).

    Not every weighted graph with cycles has a deterministic equal: OpenFst would go on till memory is used up.

    Args:
        graph: the graph.
        semiring: "log" or "tropical".
        max_states: where to give up; OpenFst can count them for "tropical" alone.

    Raises:
        FsaError: more than max_states, or a transducer that isn't functional.
        ArgumentError: max_states with "log".
    """
    fst = to_openfst(graph, semiring=semiring)
    limit = {}
    if max_states is not None:
        if semiring == "log":
            raise ArgumentError(
                "OpenFst counts no states of a determinization in the log semiring: leave max_states out",
                argument="max_states",
            )
        limit = {"nstate": max_states}
    made = _result(lambda: pywrapfst().determinize(fst, delta=_delta(semiring), **limit))
    if max_states is not None and made.num_states >= max_states:
        raise FsaError(
            f"more than max_states = {max_states} states: the graph may have no deterministic equal (a cycle that two "
            "paths share with different weights)"
        )
    return made


def minimize(graph: Graph, *, semiring: str) -> Wfst:
    """As few states as a deterministic graph for it can have; weights are pushed towards the start.

    Raises:
        FsaError: not deterministic (`determinize` first).
    """
    fst = to_openfst(graph, semiring=semiring)
    if not _has(fst, "I_DETERMINISTIC"):
        raise FsaError("the graph isn't deterministic, which minimization needs: determinize first")
    return _result(lambda: fst.minimize(delta=_delta(semiring)) or fst)


def push(graph: Graph, *, semiring: str, towards: str = "start", remove_total: bool = False) -> Wfst:
    """Weights as early ("start") or late ("final") as can be; path weights stay, or lose their total (`remove_total`).

    With semiring "log" and towards the start, weights leaving a state are probabilities that sum to one.

    Raises:
        ArgumentError: another direction.
    """
    directions = {"start": "to_initial", "final": "to_final"}
    if towards not in directions:
        raise ArgumentError(f"towards must be 'start' or 'final', got {towards!r}", argument="towards")
    return _in_place(
        graph,
        semiring,
        lambda fst: fst.push(
            delta=_delta(semiring), remove_total_weight=remove_total, reweight_type=directions[towards]
        ),
    )


def remove_epsilon(graph: Graph, *, semiring: str) -> Wfst:
    """Without arcs that have epsilon on both sides, and connected."""
    return _in_place(graph, semiring, lambda fst: fst.rmepsilon(delta=_delta(semiring)))


def reverse(graph: Graph) -> Wfst:
    """Every path backwards; a new start leads to the old final states by epsilons."""
    fst = to_openfst(graph, semiring="log")
    return _result(lambda: pywrapfst().reverse(fst))


def union(first: Graph, second: Graph) -> Wfst:
    """The paths of both; made with epsilons."""
    other = to_openfst(second, semiring="log")
    return _in_place(first, "log", lambda fst: fst.union(other))


def concat(first: Graph, second: Graph) -> Wfst:
    """Each path of the first followed by each of the second; made with epsilons."""
    other = to_openfst(second, semiring="log")
    return _in_place(first, "log", lambda fst: fst.concat(other))


def closure(graph: Graph, *, at_least_once: bool = False) -> Wfst:
    """Paths of the graph one after the other, any number of them; made with epsilons."""
    kind = "plus" if at_least_once else "star"
    return _in_place(graph, "log", lambda fst: fst.closure(kind))


def shortest_distance(graph: Graph, *, semiring: str, reverse: bool = False) -> NDArray[np.float64]:
    """(S,) log weight of all paths ("log") or the best ("tropical") from the start to each state; -inf: there is none.

    With `reverse`, from each state to the end, final weights included: the total of the graph stands at its start.
    Cycles of weight 0 or more have no total: OpenFst would not come to an end.

    Raises:
        FsaError: OpenFst finds no distances.
    """
    fst = to_openfst(graph, semiring=semiring)
    module = pywrapfst()
    try:
        costs = [float(w) for w in module.shortestdistance(fst, delta=_delta(semiring), reverse=reverse)]
    except module.FstError as error:
        raise FsaError(f"OpenFst: {error}") from error
    # It stops at the last state that can be reached.
    distances = np.full(fst.num_states(), -np.inf)
    distances[: len(costs)] = 0.0 - np.array(costs, dtype=np.float64)
    return distances


def equivalent(first: Graph, second: Graph, *, semiring: str, tolerance: float = 1e-6) -> bool:
    """Whether both accept the same sequences with the same weights, up to `tolerance`.

    Epsilons are removed and both determinized before.

    Raises:
        FsaError: a transducer, or a graph that can't be determinized.
    """
    plain = []
    for name, graph in (("first", first), ("second", second)):
        wfst = Wfst.from_fsa(graph) if isinstance(graph, Fsa) else graph
        if not wfst.is_acceptor:
            raise FsaError(f"{name} has output labels of its own: equivalence is decided for acceptors")
        plain.append(determinize(remove_epsilon(wfst, semiring=semiring), semiring=semiring))
    module = pywrapfst()
    try:
        return bool(module.equivalent(*(_without_symbols(w, semiring) for w in plain), delta=tolerance))
    except module.FstError as error:
        raise FsaError(f"OpenFst: {error}") from error


def _without_symbols(graph: Wfst, semiring: str) -> Any:
    fst = to_openfst(graph, semiring=semiring)
    fst.set_input_symbols(None)
    fst.set_output_symbols(None)
    return fst
