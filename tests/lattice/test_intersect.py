"""The pruned intersection of scores with graphs, against enumeration of the paths of T frames."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain import lattice as lt
from seqtrain import reference
from seqtrain.errors import (
    ArgumentError,
    DtypeError,
    InfeasibleError,
    LabelError,
    NonFiniteScoresError,
    ShapeError,
)
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.lattice import Lattice
from tests.lattice.examples import enumerate_lattice, random_acyclic

LABELS, FRAMES = 4, 5


def random_cyclic(seed: int, *, states: int = 4, arcs: int = 9) -> Fsa:
    """A graph with loops, cycles, parallel arcs, dead ends and forbidden arcs."""
    random = np.random.default_rng(seed)
    rows = np.column_stack([random.integers(0, states, (arcs, 2)), random.integers(0, LABELS, arcs)])
    weights = random.normal(size=arcs)
    weights[random.random(arcs) < 0.1] = -np.inf
    final = {int(s): float(random.normal()) for s in random.permutation(states)[:2]}
    return Fsa(rows, weights, num_states=states, start=int(random.integers(states)), final=final)


class Problem(NamedTuple):
    scores: torch.Tensor
    lengths: torch.Tensor
    graphs: FsaBatch

    def lattice(self, **options: object) -> Lattice:
        return lt.intersect(self.scores, self.lengths, self.graphs, on_infeasible="inf", **options)


def problem(seeds: range, *, cyclic: bool = True) -> Problem:
    generator = torch.Generator().manual_seed(seeds[0])
    count = len(seeds)
    scores = torch.randn(count, FRAMES, LABELS, generator=generator, dtype=torch.float64)
    scores[torch.rand(scores.shape, generator=generator) < 0.05] = -torch.inf
    lengths = torch.randint(0, FRAMES + 1, (count,), generator=generator)
    graphs = [random_cyclic(s) if cyclic else random_acyclic(s, labels=LABELS) for s in seeds]
    return Problem(scores, lengths, FsaBatch.from_list(graphs))


def paths_of(lattice: Lattice) -> dict[tuple[int, ...], float]:
    """Score of each path of a lattice of one utterance, named by its graph's arcs."""
    assert lattice.graph_arcs is not None
    names = lattice.graph_arcs.tolist()
    return {tuple(names[a] for a in path.arcs): path.score for path in enumerate_lattice(lattice)}


@pytest.mark.parametrize("cyclic", [True, False])
def test_without_a_beam_it_holds_every_path(cyclic: bool) -> None:
    p = problem(range(60), cyclic=cyclic)
    lattice = p.lattice()
    lattice.check()
    assert not lattice.truncated.any()
    feasible = 0
    for b, one in enumerate(lattice):
        length = int(p.lengths[b])
        expected = {x.arcs: x.score for x in reference.enumerate_paths(p.scores[b, :length], p.graphs[b])}
        found = paths_of(one)
        assert found.keys() == expected.keys()
        assert all(found[name] == pytest.approx(expected[name], abs=1e-9) for name in found)
        assert bool(one.empty) == (not expected)
        feasible += bool(expected)
    assert feasible > 15
    exact = st.full_sum(p.scores, p.lengths, p.graphs, on_infeasible="inf")
    np.testing.assert_allclose(lt.total_score(lattice), exact, atol=1e-9)


def test_no_state_is_a_dead_end() -> None:
    for one in problem(range(100, 140)).lattice(beam=1.5):
        if one.empty:
            continue
        arcs = one.arcs.tolist()
        states = set(range(one.frames.shape[0]))
        assert {p for p, _, _ in arcs} | set(one.final_states.tolist()) == states
        assert {q for _, q, _ in arcs} | {0} == states
        assert set(one.frames[one.final_states.long()].tolist()) == set(one.lengths.tolist())


def test_a_beam_keeps_the_states_it_says_and_reports_the_others() -> None:
    p = problem(range(200, 260))
    beam, dropped_somewhere, lost = 1.0, 0, 0
    lattice = p.lattice(beam=beam)
    for b, one in enumerate(lattice):
        length, fsa = int(p.lengths[b]), p.graphs[b]
        rows = list(enumerate(zip(fsa.arcs.tolist(), fsa.weights.tolist(), strict=True)))
        active: dict[int, float] = {fsa.start: 0.0}
        kept: list[set[int]] = [set(active)]
        dropped = 0
        for t in range(length):
            reached: dict[int, float] = {}
            for _, ((s, d, label), weight) in rows:
                total = active.get(s, -np.inf) + weight + float(p.scores[b, t, label])
                if total > reached.get(d, -np.inf):
                    reached[d] = total
            useful = {s for s, v in reached.items() if v > -np.inf and _reaches_end(fsa, s)}
            best = max((reached[s] for s in useful), default=-np.inf)
            active = {s: reached[s] for s in useful if reached[s] >= best - beam}
            dropped += len(useful) - len(active)
            kept.append(set(active))
        expected = {
            x.arcs: x.score
            for x in reference.enumerate_paths(p.scores[b, :length], fsa)
            if all(s in kept[t + 1] for t, s in enumerate(x.states))
        }
        found = paths_of(one)
        assert found.keys() == expected.keys()
        if _accepts(fsa, length):
            assert int(one.truncated) == dropped
        dropped_somewhere += dropped > 0
        lost += not expected and any(True for _ in reference.enumerate_paths(p.scores[b, :length], fsa))
    assert dropped_somewhere > 10
    assert lost > 0


def _reaches_end(fsa: Fsa, state: int) -> bool:
    copy = Fsa(fsa.arcs, fsa.weights, num_states=fsa.num_states, start=state,
               final=(fsa.final_states, fsa.final_weights))  # fmt: skip
    return copy.min_length() >= 0


def _accepts(fsa: Fsa, length: int) -> bool:
    return any(True for _ in reference.enumerate_paths(np.zeros((length, LABELS)), fsa))


def test_max_active_keeps_the_best_and_of_equals_the_lowest() -> None:
    fan = Fsa([[0, s, s - 1] for s in range(1, 5)] + [[s, 5, 0] for s in range(1, 5)])
    scores = torch.tensor([[[0.0, 2.0, 1.0, 1.0], [0.0] * 4]])
    lengths = torch.tensor([2])
    for limit, labels in ((1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [0, 1, 2, 3])):
        lattice = lt.intersect(scores, lengths, fan, max_active=limit)
        assert sorted({path[0] for path in lt.nbest(lattice, 9).labels()}) == labels
        assert lattice.truncated.tolist() == [4 - limit]


def test_a_beam_too_small_is_told_apart_from_no_path(caplog: pytest.LogCaptureFixture) -> None:
    # The better first step leads where the second frame allows nothing.
    graph = Fsa([[0, 1, 0], [0, 2, 1], [1, 3, 2], [2, 3, 3]])
    scores = torch.tensor([[[5.0, 0.0, 0.0, 0.0], [0.0, 0.0, -torch.inf, 0.0]]])
    lengths = torch.tensor([2])
    assert lt.total_score(lt.intersect(scores, lengths, graph)).tolist() == [0.0]
    with pytest.raises(InfeasibleError, match=r"the search dropped every path \(beam=1, .*widen the beam"):
        lt.intersect(scores, lengths, graph, beam=1.0)
    with caplog.at_level(logging.WARNING, logger="seqtrain"):
        lattice = lt.intersect(scores, lengths, graph, beam=1.0, on_infeasible="mask")
    assert "1 of 1 utterances have no path" in caplog.text
    assert lattice.empty.tolist() == [True]
    assert lattice.truncated.tolist() == [1]
    with pytest.raises(InfeasibleError, match="utterance 0: 1 frames given, needs 2"):
        lt.intersect(scores, torch.tensor([1]), graph)


def test_an_infeasible_item_leaves_the_others_alone() -> None:
    graph = Fsa([[0, 1, 0], [1, 2, 1], [2, 2, 2]])
    scores = torch.randn(3, 4, LABELS, generator=torch.Generator().manual_seed(0))
    count = st.InfeasibleCount()
    lattice = lt.intersect(scores, torch.tensor([4, 1, 3]), graph, on_infeasible="mask", infeasible=count)
    assert lattice.empty.tolist() == [False, True, False]
    assert count.last == (1,)
    value = lt.total_score(lattice)
    assert value[1] == -torch.inf
    alone = lt.intersect(scores[2:], torch.tensor([3]), graph)
    assert torch.equal(lt.total_score(alone)[0], value[2])
    with pytest.raises(InfeasibleError, match=r"utterance 1 \(rec/b\): 1 frames given, needs 2"):
        lt.intersect(
            scores, torch.tensor([4, 1, 3]), FsaBatch.from_list([graph] * 3, tags=["a", "rec/b", "c"])
        )


def test_gradients_are_those_of_the_full_sum() -> None:
    p = problem(range(300, 330))
    rows = []
    for total in (
        lambda s, g: lt.total_score(lt.intersect(s, p.lengths, g, on_infeasible="inf")),
        lambda s, g: st.full_sum(s, p.lengths, g, on_infeasible="inf"),
    ):
        scores = p.scores.clone().requires_grad_()
        weights = p.graphs.weights.clone().requires_grad_()
        finals = p.graphs.final_weights.clone().requires_grad_()
        value = total(scores, p.graphs.with_weights(weights, finals))
        value[value > -torch.inf].sum().backward()
        rows.append((scores.grad, weights.grad, finals.grad))
    for ours, theirs in zip(*rows, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_shared_graph_packed_scores_and_dtypes() -> None:
    graph = random_cyclic(5)
    while graph.min_length() < 0:
        raise AssertionError("choose a seed whose graph accepts something")
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(3, FRAMES, LABELS, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([5, 3, 4])
    packed = st.Packed(torch.cat([scores[b, : lengths[b]] for b in range(3)]), torch.tensor([0, 5, 8, 12]))
    swapped = scores.transpose(0, 1).contiguous().transpose(0, 1)
    base = lt.intersect(scores, lengths, graph, on_infeasible="inf")
    for other in (
        lt.intersect(packed, lengths, graph, on_infeasible="inf"),
        lt.intersect(swapped, lengths, graph, on_infeasible="inf"),
        lt.intersect(scores, lengths, FsaBatch.from_list([graph] * 3), on_infeasible="inf"),
    ):
        for name, tensor in base._parts().items():
            if tensor is not None:
                assert torch.equal(tensor, getattr(other, name)), name
    half = lt.intersect(scores.half(), lengths, graph, on_infeasible="inf")
    assert half.weights.dtype == torch.float32
    np.testing.assert_allclose(lt.total_score(half), lt.total_score(base), atol=0.02)


def test_batch_order_padding_and_a_constant_per_frame() -> None:
    p = problem(range(400, 430))
    value = lt.total_score(p.lattice(beam=2.0))
    turned = Problem(p.scores.flip(0), p.lengths.flip(0), FsaBatch.from_list(list(p.graphs)[::-1]))
    assert torch.equal(lt.total_score(turned.lattice(beam=2.0)).flip(0), value)
    padded = Problem(torch.cat([p.scores, torch.full_like(p.scores, torch.nan)], dim=1), *p[1:])
    assert torch.equal(lt.total_score(padded.lattice(beam=2.0)), value)
    offsets = torch.arange(FRAMES, dtype=torch.float64)[:, None]
    shift = torch.tensor([float(offsets[:length].sum()) for length in p.lengths.tolist()])
    moved = lt.total_score(Problem(p.scores + offsets, *p[1:]).lattice(beam=2.0))
    alive = value > -torch.inf
    np.testing.assert_allclose((moved - shift)[alive], value[alive], atol=1e-9)


def test_same_bits_for_any_number_of_threads() -> None:
    generator = torch.Generator().manual_seed(2)
    graph = Fsa(
        torch.cat([torch.randint(0, 60, (600, 2), generator=generator),
                   torch.randint(0, 20, (600, 1), generator=generator)], dim=1),
        final=dict.fromkeys(range(60), 0.0),
    )  # fmt: skip
    scores = torch.randn(6, 50, 20, generator=generator, requires_grad=True)
    lengths = torch.tensor([50, 48, 30, 50, 10, 44])
    results = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        lattice = lt.intersect(scores, lengths, graph, beam=6.0)
        (gradient,) = torch.autograd.grad(lt.total_score(lattice).sum(), scores)
        results.append((lattice.arcs, lattice.weights, lattice.truncated, gradient))
    torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.torch2  # torch.library.opcheck
@pytest.mark.parametrize("packed", [False, True])
def test_operator(packed: bool) -> None:
    p = problem(range(3))
    graph = FsaBatch.from_list([random_cyclic(5)])
    parts = (graph.arcs, graph.weights, graph.arc_offsets, graph.final_states, graph.final_weights,
             graph.final_offsets, graph.starts, graph.num_states)  # fmt: skip
    values, offsets = (p.scores, None)
    if packed:
        values, offsets = p.scores.flatten(0, 1), torch.tensor([0, 5, 10, 15])
    lengths = torch.full((3,), FRAMES)
    torch.library.opcheck(
        torch.ops.seqtrain.intersect.default,
        (values, offsets, lengths, *parts, 2.0, 100, "mask", -1),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_bad_input() -> None:
    graph = Fsa([[0, 0, 0], [0, 1, 1]])
    scores, lengths = torch.zeros(2, 3, 2), torch.tensor([3, 2])
    with pytest.raises(
        ArgumentError, match=r"beam must be at least 0 \(math.inf: no beam\), got -1"
    ) as caught:
        lt.intersect(scores, lengths, graph, beam=-1)
    assert caught.value.argument == "beam"
    with pytest.raises(ArgumentError, match="beam must be at least 0"):
        lt.intersect(scores, lengths, graph, beam=math.nan)
    with pytest.raises(ArgumentError, match="max_active must be at least 1, got 0"):
        lt.intersect(scores, lengths, graph, max_active=0)
    with pytest.raises(ShapeError, match=r"aux must have the shape \(2,\), got \(1,\)"):
        lt.intersect(scores, lengths, graph, aux=[1])
    with pytest.raises(DtypeError, match="fsa must be an FsaBatch, an Fsa or a k2"):
        lt.intersect(scores, lengths, [graph])
    with pytest.raises(LabelError, match="arc 0 of automaton 0 has label 7, but scores have 2 labels"):
        lt.intersect(scores, lengths, Fsa([[0, 1, 7]]))
    scores[1, 1, 0] = torch.nan
    with pytest.raises(NonFiniteScoresError, match=r"scores of utterance 1 hold NaN .* at frame 1"):
        lt.intersect(scores, lengths, graph)


def test_zero_frames_and_no_utterances() -> None:
    graph = Fsa([[0, 1, 0]], final={0: -0.25, 1: 0.0})
    lattice = lt.intersect(torch.zeros(1, 2, 1), torch.tensor([0]), graph)
    assert lattice.frames.tolist() == [0]
    assert lt.total_score(lattice).tolist() == [-0.25]
    assert len(lt.best_path(lattice)) == 1
    nobody = lt.intersect(torch.zeros(0, 2, 1), torch.zeros(0, dtype=torch.int64), graph)
    assert len(nobody) == 0
    assert lt.total_score(nobody).shape == (0,)
    assert len(lt.nbest(nobody, 3)) == 0


def test_auxiliary_labels_come_from_the_graph() -> None:
    graph = Fsa([[0, 1, 0], [1, 1, 0], [1, 2, 1]])
    lattice = lt.intersect(torch.zeros(1, 3, 2), torch.tensor([3]), graph, aux=[7, -1, 9])
    assert lt.best_path(lattice).aux() == [[7, 9]]
    assert lt.best_path(lattice).labels() == [[0, 0, 1]]
