"""k2's graphs to ours and back: structure, attributes, files, refusals."""

from __future__ import annotations

from pathlib import Path

import k2
import pytest
import torch
from hypothesis import given

import seqtrain as st
from seqtrain.cli import main
from seqtrain.errors import DataError, DtypeError, FsaError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch, K2Attributes, from_k2, k2_attributes, to_k2, to_k2_text
from seqtrain.fsa.k2 import load_k2, save_k2
from tests.fsa.strategies import automata, quick
from tests.k2.graphs import graphs

TEXT = """0 1 1 11 0.5
0 2 2 12 0.25
1 1 0 0 -1
1 3 -1 -1 0.75
2 1 3 13 0
2 3 -1 -1 -0.5
3
"""


def transducer() -> k2.Fsa:
    graph = k2.Fsa.from_str(TEXT, num_aux_labels=1)
    graph.count = torch.arange(6, dtype=torch.int32)
    graph.prior = torch.linspace(0, 1, 6)
    graph.words = k2.RaggedTensor([[1], [2, 3], [], [4], [5, 6, 7], []])
    graph.labels_sym = "names of labels"
    return graph


def test_one_graph() -> None:
    fsa = from_k2(transducer())
    assert isinstance(fsa, Fsa)
    assert fsa.arcs.tolist() == [[0, 1, 1], [0, 2, 2], [1, 1, 0], [2, 1, 3]]
    assert fsa.weights.tolist() == [0.5, 0.25, -1.0, 0.0]
    assert (fsa.num_states, fsa.start) == (3, 0)
    assert dict(zip(fsa.final_states.tolist(), fsa.final_weights.tolist(), strict=True)) == {1: 0.75, 2: -0.5}


def test_attributes_go_along_both_ways() -> None:
    graph = transducer()
    attributes = k2_attributes(graph)
    assert attributes.arcs["aux_labels"].tolist() == [11, 12, 0, 13]
    assert attributes.finals["aux_labels"].tolist() == [-1, -1]
    assert attributes.arcs["count"].tolist() == [0, 1, 2, 4]
    assert attributes.arcs["words"] == [[1], [2, 3], [], [5, 6, 7]]
    assert attributes.graph == {"labels_sym": "names of labels"}
    back = to_k2(from_k2(graph), attributes=attributes)
    assert torch.equal(back.arcs.values(), graph.arcs.values())
    assert torch.equal(back.aux_labels, graph.aux_labels)
    assert torch.equal(back.count, graph.count)
    assert torch.equal(back.prior, graph.prior)
    assert back.words.tolist() == graph.words.tolist()
    assert back.labels_sym == "names of labels"


def test_a_batch_with_attributes() -> None:
    vector = k2.create_fsa_vec([transducer(), transducer()])
    vector.count = torch.arange(12, dtype=torch.int32)
    batch = from_k2(vector)
    assert isinstance(batch, FsaBatch)
    assert len(batch) == 2
    back = to_k2(batch, attributes=k2_attributes(vector))
    assert torch.equal(back.arcs.values(), vector.arcs.values())
    assert torch.equal(back.count, vector.count)
    assert torch.equal(back.arcs.row_splits(2), vector.arcs.row_splits(2))


def test_gradients_reach_scores_and_attributes() -> None:
    graph = transducer()
    graph.scores.requires_grad_(True)
    graph.prior.requires_grad_(True)
    fsa, attributes = from_k2(graph), k2_attributes(graph)
    (fsa.weights.sum() + 2 * fsa.final_weights.sum() + 3 * attributes.arcs["prior"].sum()).backward()
    assert graph.scores.grad.tolist() == [1, 1, 1, 2, 1, 2]
    assert graph.prior.grad.tolist() == [3, 3, 3, 0, 3, 0]


def test_gradients_reach_the_weights_through_k2() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    finals = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    graph = to_k2(Fsa([[1, 0, 5], [0, 1, 4], [0, 0, 3]], weights, final=([1], finals)))
    assert graph.labels.tolist() == [4, 3, 5, -1]
    graph.scores.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    assert weights.grad.tolist() == [100, 1, 10]
    assert finals.grad.tolist() == [1000]


@quick
@given(automaton=automata())
def test_any_automaton_comes_back(automaton: Fsa) -> None:
    if automaton.start != 0:
        with pytest.raises(FsaError, match="k2 starts at state 0"):
            to_k2(automaton)
        return
    graph = to_k2(automaton)
    # The same as by k2's text, which lists arcs by source, too. k2 reads it where an arc leads to the final state
    # and no weight is infinite.
    assert from_k2(graph).equal(st.fsa.from_k2_text(to_k2_text(automaton)))
    weights = torch.cat((automaton.weights, automaton.final_weights))
    if automaton.final_states.numel() and bool(weights.isfinite().all()):
        assert torch.equal(k2.Fsa.from_str(to_k2_text(automaton)).arcs.values(), graph.arcs.values())


def test_an_empty_graph_accepts_nothing() -> None:
    empty = k2.Fsa.from_str("")
    assert from_k2(empty).min_length() == -1
    both = from_k2(k2.create_fsa_vec([empty, to_k2(from_k2(transducer()))]))
    assert both.min_length().tolist() == [-1, 1]


def test_ctc_graphs_are_ours() -> None:
    """k2's own topology gives the same sums as ours."""
    scores = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    lengths = torch.tensor([9, 7])
    k2s = k2.ctc_graph([[1, 1, 3], [5, 2]])
    ours = st.fsa.ctc(torch.tensor([[1, 1, 3], [5, 2, 0]]), torch.tensor([3, 2]))
    torch.testing.assert_close(st.full_sum(scores, lengths, k2s), st.full_sum(scores, lengths, ours))


def test_two_arcs_into_the_end_are_refused() -> None:
    graph = k2.Fsa.from_str("0 1 1 0\n1 2 -1 0\n1 2 -1 1\n2\n")
    with pytest.raises(FsaError, match=r"arc 2 is the second from state 1 into the final state") as error:
        from_k2(graph)
    assert (error.value.sequence, error.value.arc, error.value.state) == (0, 2, 1)


def test_what_is_no_graph() -> None:
    with pytest.raises(DtypeError, match=r"graph must be a k2\.Fsa, got str"):
        from_k2("0 1 1 0\n1")


def test_attributes_of_another_graph_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"attributes.arcs\['count'\] has 3 values for 4 arcs"):
        to_k2(
            from_k2(transducer()),
            attributes=K2Attributes({"count": torch.zeros(3)}, {"count": torch.zeros(2)}),
        )


def test_nan_scores_are_refused() -> None:
    graph = transducer()
    graph.scores = torch.full((6,), float("nan"))
    with pytest.raises(FsaError, match="arc 0"):
        from_k2(graph)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "graph.pt"
    save_k2(graphs(), path)
    loaded, attributes = load_k2(path)
    assert isinstance(loaded, FsaBatch)
    for one, other in zip(loaded, graphs(), strict=True):
        assert one.equal(other)
    assert attributes.arcs == {}
    torch.save(transducer().as_dict(), path)
    loaded, attributes = load_k2(path)
    assert attributes.arcs["aux_labels"].tolist() == [11, 12, 0, 13]
    path.write_text("no graph")
    with pytest.raises(DataError, match=r"graph.pt isn't a graph that k2 has saved"):
        load_k2(path)


def test_the_command_converts_k2s_files(tmp_path: Path) -> None:
    source, fst, back = tmp_path / "graph.pt", tmp_path / "graph.fst", tmp_path / "back.pt"
    torch.save(transducer().as_dict(), source)
    assert main(["fsa", "convert", str(source), str(fst)]) == 0
    assert main(["fsa", "convert", str(fst), str(back)]) == 0
    assert load_k2(back)[0].equal(load_k2(source)[0])
    # An output label of k2's is OpenFst's own, with 0 for none on both sides.
    assert load_k2(back)[1].arcs["aux_labels"].tolist() == [11, 12, 0, 13]
