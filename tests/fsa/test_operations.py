"""Operations of OpenFst on our automata, against the weights of all short sequences, one by one."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.errors import ArgumentError, FsaError, MissingDependencyError
from seqtrain.fsa import Fsa, operations
from seqtrain.fsa.operations import Graph
from seqtrain.fsa.wfst import Wfst
from tests.fsa.strategies import quick

LABELS, LONGEST = 2, 4
SEMIRINGS = ("log", "tropical")
TOLERANCE = {"log": 1e-6, "tropical": 1e-4}
Weights = dict[tuple[int, ...], float]

BRANCHES = Fsa([[0, 1, 0], [0, 1, 1], [0, 2, 1], [1, 3, 0], [2, 3, 0]], [-0.5, -1.0, -1.5, 0.0, -0.2])
LOOP = Fsa([[0, 0, 1], [0, 1, 0]], [-0.7, -0.3])


@hs.composite
def acyclic(draw: hs.DrawFn) -> Fsa:
    """Automata of up to 5 states whose arcs lead to higher ones, with parallel arcs and dead ends."""
    states = draw(hs.integers(2, 5))
    pairs = list(itertools.combinations(range(states), 2))
    arcs = draw(
        hs.lists(hs.tuples(hs.sampled_from(pairs), hs.integers(0, LABELS - 1)), min_size=1, max_size=9)
    )
    weight = hs.integers(-40, 10).map(lambda n: n / 8)
    weights = draw(hs.lists(weight, min_size=len(arcs), max_size=len(arcs)))
    final = draw(hs.dictionaries(hs.integers(0, states - 1), weight, min_size=1, max_size=2))
    return Fsa(
        [[*pair, label] for pair, label in arcs],
        torch.tensor(weights, dtype=torch.float64),
        num_states=states,
        final=final,
    )


def plus(semiring: str, a: float, b: float) -> float:
    return float(np.logaddexp(a, b)) if semiring == "log" else max(a, b)


def accepted(graph: Graph, semiring: str) -> Weights:
    """The weight of every sequence of columns up to LONGEST that the graph accepts."""
    if isinstance(graph, Wfst):
        graph = operations.remove_epsilon(graph, semiring=semiring).to_fsa(dtype=np.float64)
    found: Weights = {}
    finals = dict(zip(graph.final_states.tolist(), graph.final_weights.tolist(), strict=True))
    arcs = list(zip(graph.arcs.tolist(), graph.weights.tolist(), strict=True))
    for length in range(LONGEST + 1):
        for sequence in itertools.product(range(LABELS), repeat=length):
            alpha = {graph.start: 0.0}
            for label in sequence:
                following: dict[int, float] = {}
                for (source, destination, of_arc), weight in arcs:
                    if of_arc == label and source in alpha:
                        before = following.get(destination, -np.inf)
                        following[destination] = plus(semiring, before, alpha[source] + weight)
                alpha = following
            total = -np.inf
            for state, value in alpha.items():
                if state in finals:
                    total = plus(semiring, total, value + finals[state])
            if total > -np.inf:
                found[sequence] = total
    return found


def assert_same(got: Weights, expected: Weights, semiring: str) -> None:
    assert got.keys() == expected.keys()
    for sequence, weight in expected.items():
        assert got[sequence] == pytest.approx(weight, abs=TOLERANCE[semiring]), sequence


def combined(semiring: str, pairs: list[tuple[tuple[int, ...], float]]) -> Weights:
    """Sequences that may occur more than once, up to LONGEST."""
    found: Weights = {}
    for sequence, weight in pairs:
        if len(sequence) <= LONGEST:
            found[sequence] = plus(semiring, found.get(sequence, -np.inf), weight)
    return found


@pytest.mark.parametrize("semiring", SEMIRINGS)
@quick
@given(fsa=acyclic())
def test_what_keeps_the_weight_of_every_sequence(semiring: str, fsa: Fsa) -> None:
    expected = accepted(fsa, semiring)
    deterministic = operations.determinize(fsa, semiring=semiring)
    assert operations.has_property(deterministic, "I_DETERMINISTIC")
    smallest = operations.minimize(deterministic, semiring=semiring)
    assert smallest.num_states <= deterministic.num_states
    for result in (
        deterministic,
        smallest,
        operations.connect(fsa),
        operations.top_sort(fsa),
        operations.push(operations.connect(fsa), semiring=semiring),
        operations.push(operations.connect(fsa), semiring=semiring, towards="final"),
        operations.remove_epsilon(fsa, semiring=semiring),
    ):
        assert_same(accepted(result, semiring), expected, semiring)


@pytest.mark.parametrize("semiring", SEMIRINGS)
@quick
@given(first=acyclic(), second=acyclic())
def test_two_graphs(semiring: str, first: Fsa, second: Fsa) -> None:
    a, b = accepted(first, semiring), accepted(second, semiring)
    both = {sequence: a[sequence] + b[sequence] for sequence in a.keys() & b.keys()}
    assert_same(accepted(operations.intersect(first, second), semiring), both, semiring)
    assert_same(accepted(operations.compose(first, second), semiring), both, semiring)
    either = combined(semiring, [*a.items(), *b.items()])
    assert_same(accepted(operations.union(first, second), semiring), either, semiring)
    behind = combined(semiring, [(x + y, a[x] + b[y]) for x in a for y in b])
    assert_same(accepted(operations.concat(first, second), semiring), behind, semiring)


@pytest.mark.parametrize("semiring", SEMIRINGS)
@quick
@given(fsa=acyclic())
def test_reverse_and_shortest_distance(semiring: str, fsa: Fsa) -> None:
    expected = accepted(fsa, semiring)
    backwards = {sequence[::-1]: weight for sequence, weight in expected.items()}
    assert_same(accepted(operations.reverse(fsa), semiring), backwards, semiring)
    total = -np.inf
    for weight in expected.values():
        total = plus(semiring, total, weight)
    distances = operations.shortest_distance(fsa, semiring=semiring, reverse=True)
    assert distances.shape == (fsa.num_states,)
    assert distances[fsa.start] == pytest.approx(total, abs=TOLERANCE[semiring])
    forwards = operations.shortest_distance(fsa, semiring=semiring)
    ends = [
        forwards[state] + weight
        for state, weight in zip(fsa.final_states.tolist(), fsa.final_weights.tolist(), strict=True)
    ]
    summed = -np.inf
    for value in ends:
        summed = plus(semiring, summed, value)
    assert summed == pytest.approx(total, abs=TOLERANCE[semiring])


def test_closure() -> None:
    once = Fsa([[0, 1, 1]], [-0.5])
    any_number = accepted(operations.closure(once), "log")
    assert any_number == pytest.approx({(1,) * n: -0.5 * n for n in range(LONGEST + 1)})
    assert () not in accepted(operations.closure(once, at_least_once=True), "log")


@pytest.mark.parametrize("semiring", SEMIRINGS)
def test_equivalence(semiring: str) -> None:
    smallest = operations.minimize(operations.determinize(BRANCHES, semiring=semiring), semiring=semiring)
    assert operations.equivalent(BRANCHES, smallest, semiring=semiring)
    doubled = operations.union(BRANCHES, BRANCHES)
    # Twice the same is the same where the best counts, and twice as probable where paths add up.
    assert operations.equivalent(BRANCHES, doubled, semiring=semiring) == (semiring == "tropical")
    other = Fsa(BRANCHES.arcs, BRANCHES.weights + torch.tensor([0.0, 0.0, 0.0, 0.0, 1e-3]))
    # The last arc matters where paths add up, and to no best path.
    assert operations.equivalent(BRANCHES, other, semiring=semiring) == (semiring == "tropical")
    assert operations.equivalent(BRANCHES, other, semiring=semiring, tolerance=0.1)


def test_pushed_weights_are_probabilities() -> None:
    pushed = operations.push(BRANCHES, semiring="log", remove_total=True)
    for state in range(3):
        leaving = np.exp(pushed.weights[pushed.arcs[:, 0] == state]).sum()
        assert leaving == pytest.approx(1.0, abs=1e-6)


def test_composition_of_transducers() -> None:
    """Labels as OpenFst counts them: 1 → 2 at no cost, then 2 → 1."""
    first = Wfst.from_fsa(Fsa([[0, 0, 0]], [-1.0]), output_labels=[2])
    second = Wfst.from_fsa(Fsa([[0, 0, 1]], [-0.5]), output_labels=[7])
    made = operations.compose(first, second)
    assert made.arcs.tolist() == [[0, 0, 1, 7]]
    assert made.weights.tolist() == [-1.5]


REFUSALS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (
        lambda: operations.minimize(BRANCHES, semiring="log"),
        FsaError,
        "isn't deterministic.*determinize first",
    ),
    (lambda: operations.top_sort(LOOP), FsaError, "the graph has a cycle"),
    (lambda: operations.push(LOOP, semiring="max"), ArgumentError, "semiring must be 'log'.*got 'max'"),
    (
        lambda: operations.push(LOOP, semiring="log", towards="end"),
        ArgumentError,
        "'start' or 'final', got 'end'",
    ),
    (
        lambda: operations.determinize(BRANCHES, semiring="log", max_states=3),
        ArgumentError,
        "counts no states of a determinization in the log semiring",
    ),
    (
        # a: 0 or 1 on loops that never agree: no deterministic graph has their best weights.
        lambda: operations.determinize(
            Fsa(
                [[0, 1, 0], [0, 2, 0], [1, 1, 1], [2, 2, 1], [1, 3, 0], [2, 3, 2]],
                [0.0, 0.0, -1.0, -2.0, 0.0, 0.0],
            ),
            semiring="tropical",
            max_states=50,
        ),
        FsaError,
        "more than max_states = 50 states",
    ),
    (
        lambda: operations.intersect(Wfst.from_fsa(LOOP, output_labels=[1, 1]), LOOP),
        FsaError,
        "first has output labels of its own",
    ),
    (
        lambda: operations.equivalent(LOOP, Wfst.from_fsa(LOOP, output_labels=[1, 1]), semiring="log"),
        FsaError,
        "second has output labels of its own",
    ),
    (lambda: operations.union(LOOP, LOOP).to_fsa(), FsaError, "has an epsilon, which consumes no frame"),
]


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS)
def test_refusals(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_without_openfst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pywrapfst", None)
    with pytest.raises(MissingDependencyError, match=r"pynini is not installed.*seqtrain\[openfst\]"):
        operations.connect(LOOP)
