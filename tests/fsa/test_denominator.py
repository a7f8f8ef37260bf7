"""Denominators of token models, against the sum over all token sequences one by one."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain import reference
from seqtrain.errors import ArgumentError, DataError, LabelError
from seqtrain.fsa import (
    Fsa,
    TokenModel,
    Transitions,
    denominator,
    estimate_token_model,
    read_arpa,
    token_model_of,
)
from seqtrain.fsa.wfst import Wfst

TRANSCRIPTS = [[1, 2, 1], [2, 2], [3, 1], [1, 2, 3, 3], [2], []]
ARPA = """\\data\\
ngram 1=5
ngram 2=4

\\1-grams:
-0.8 </s>
-99 <s> -0.3
-0.5 a -0.25
-0.6 b -0.1
-0.7 c

\\2-grams:
-0.2 <s> a
-0.4 a b
-0.3 b b
-0.5 b </s>

\\end\\
"""


@pytest.fixture(params=["kneser-ney 3", "witten-bell 2", "witten-bell 1"])
def model(request: pytest.FixtureRequest) -> TokenModel:
    smoothing, order = request.param.split()
    return estimate_token_model(TRANSCRIPTS, order=int(order), smoothing=smoothing)


def total(x: np.ndarray, model: TokenModel, numerator: object, longest: int) -> float:
    """log Σ over all sequences of up to `longest` tokens: p(sequence) Σ over its paths."""
    found = [-np.inf]
    for size in range(longest + 1):
        for tokens in itertools.product((1, 2, 3), repeat=size):
            row = torch.tensor([[*tokens, 0]])
            graph = numerator(row, torch.tensor([size]))[0]  # type: ignore[operator]
            found.append(model.score(tokens) + reference.full_sum(x, graph))
    return float(np.logaddexp.reduce(found))


def test_probabilities_sum_to_one(model: TokenModel) -> None:
    mass = np.exp(model.final)
    np.add.at(mass, model.arcs[:, 0], np.exp(model.weights))
    np.testing.assert_allclose(mass, 1.0, atol=1e-12)
    assert model.score([1, 2, 1]) > model.score([3, 3, 3])


def test_ctc(model: TokenModel) -> None:
    x = np.random.default_rng(1).normal(size=(4, 4))
    graph = denominator(model, "ctc")
    assert reference.full_sum(x, graph) == pytest.approx(total(x, model, st.fsa.ctc, 4), rel=1e-6)


@pytest.mark.parametrize("states", [1, 2, 3])
def test_hmm(model: TokenModel, states: int) -> None:
    x = np.random.default_rng(2).normal(size=(5, 4 * states))
    transitions = Transitions(loop=-0.5, forward=-0.9, skip=-2.0 if states > 1 else -np.inf)

    def numerator(targets: torch.Tensor, lengths: torch.Tensor) -> st.fsa.FsaBatch:
        return st.fsa.hmm(targets, lengths, states_per_label=states, transitions=transitions)

    graph = denominator(model, "hmm", states_per_label=states, transitions=transitions)
    assert reference.full_sum(x, graph) == pytest.approx(total(x, model, numerator, 5), rel=1e-6)


def test_labels_with_their_own_columns_and_transitions(model: TokenModel) -> None:
    """Token 2 has one state, as silence has; each sequence is the splice of its labels' chains."""
    columns = [[0], [0, 3], [2], [3, 1]]  # the first is nobody's
    transitions = [Transitions(loop=-0.1 * v, forward=-0.3 - v) for v in range(4)]
    x = np.random.default_rng(3).normal(size=(4, 4))

    def numerator(targets: torch.Tensor, lengths: torch.Tensor) -> list[Fsa]:
        tokens = targets[0, : int(lengths)].tolist()
        states = [(column, transitions[v]) for v in tokens for column in columns[v]]
        arcs, weights, leaving = [], [], 0.0
        for state, (column, paid) in enumerate(states, start=1):
            arcs += [[state - 1, state, column], [state, state, column]]
            weights += [leaving, paid.loop]
            leaving = paid.forward
        return [
            Fsa(
                np.array(arcs, dtype=np.int64).reshape(-1, 3),
                weights,
                num_states=len(states) + 1,
                final={len(states): leaving},
            )
        ]

    graph = denominator(model, "hmm", columns=columns, transitions=transitions)
    assert reference.full_sum(x, graph) == pytest.approx(total(x, model, numerator, 4), rel=1e-6)


def test_the_kernel_sums_it() -> None:
    graph = denominator(estimate_token_model(TRANSCRIPTS), "ctc")
    x = torch.randn(3, 9, 4)
    value = st.full_sum(x, torch.tensor([9, 5, 0]), graph)
    for b, length in enumerate((9, 5, 0)):
        assert value[b].item() == pytest.approx(reference.full_sum(x[b, :length].numpy(), graph), abs=1e-5)


def test_every_state_may_end() -> None:
    graph = denominator(estimate_token_model(TRANSCRIPTS), "hmm", states_per_label=3, all_final=True)
    assert sorted(graph.final_states.tolist()) == list(range(graph.num_states))
    assert isinstance(graph, Fsa)
    assert not graph.final_weights.any()


def test_arpa(tmp_path: Path) -> None:
    """By hand: where a bigram is there it counts, else backoff times unigram."""
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA)
    model = read_arpa(path, {"a": 1, "b": 2, "c": 3})
    ten = np.log(10)
    assert model.score([1, 2]) == pytest.approx(ten * (-0.2 - 0.4 - 0.5), rel=1e-5)
    assert model.score([2, 2, 1]) == pytest.approx(
        ten * (-0.3 - 0.6 - 0.3 - 0.1 - 0.5 - 0.25 - 0.8), rel=1e-5
    )
    assert model.score([3]) == pytest.approx(ten * (-0.3 - 0.7 - 0.8), rel=1e-5)
    with pytest.raises(DataError, match="kaldilm can't read it"):
        read_arpa(tmp_path / "nothing.arpa", {"a": 1})


def test_an_openfst_graph_with_epsilons() -> None:
    """A bigram whose backoff is a silent label: each sequence sums over where it backs off."""
    rows = [(0, 1, 1, -0.7), (0, 2, 9, -0.9), (1, 2, 9, -0.4), (1, 1, 1, -1.1), (1, 3, 2, -0.8), (3, 2, 0, -0.3),
            (2, 1, 1, -1.0), (2, 3, 2, -1.3), (2, 4, 3, -1.5), (4, 2, 0, -0.2)]  # fmt: skip
    arcs = np.array([[p, q, label, label] for p, q, label, _ in rows])
    graph = Wfst(arcs, np.array([w for *_, w in rows]), 5, 0, np.array([2, 3]), np.array([-0.6, -0.5]))
    model = token_model_of(graph, {1: 1, 2: 2, 3: 3}, silent=[9])

    def score(tokens: tuple[int, ...]) -> float:
        """Over all paths, silent arcs followed as far as they lead."""

        def through(state: int, rest: tuple[int, ...]) -> float:
            found = [-np.inf] if rest else [{2: -0.6, 3: -0.5}.get(state, -np.inf)]
            for p, q, label, weight in rows:
                if p == state and label in (0, 9):
                    found.append(weight + through(q, rest))
                elif p == state and rest and label == rest[0]:
                    found.append(weight + through(q, rest[1:]))
            return float(np.logaddexp.reduce(found))

        return through(0, tokens)

    for size in range(4):
        for tokens in itertools.product((1, 2, 3), repeat=size):
            assert model.score(tokens) == pytest.approx(score(tokens), abs=1e-9)
    x = np.random.default_rng(4).normal(size=(4, 4))
    for topology, numerator in (("ctc", st.fsa.ctc), ("hmm", st.fsa.hmm)):
        found = reference.full_sum(x, denominator(model, topology))
        assert found == pytest.approx(total(x, model, numerator, 4), rel=1e-6)
    columns = token_model_of(graph, silent=[9])
    assert columns.score([0, 1]) == pytest.approx(model.score([1, 2]))
    with pytest.raises(LabelError, match="has label 3, which labels gives no token"):
        token_model_of(graph, {1: 1, 2: 2}, silent=[9])


def test_bad_input() -> None:
    model = estimate_token_model(TRANSCRIPTS)
    with pytest.raises(ArgumentError, match="topology must be 'ctc' or 'hmm', got 'rna'"):
        denominator(model, "rna")
    with pytest.raises(LabelError, match="has label 2, the blank, which CTC puts between tokens itself"):
        denominator(model, "ctc", blank=2)
    with pytest.raises(ArgumentError, match="a skip would jump over a whole token"):
        denominator(model, "hmm", transitions=Transitions(skip=-1.0))
    with pytest.raises(ArgumentError, match="states_per_label must be at least 1, got 0"):
        denominator(model, "hmm", states_per_label=0)
    with pytest.raises(LabelError, match="label 3 must be one of the 3 that columns describes"):
        denominator(model, "hmm", columns=[[0], [1], [2]])
    with pytest.raises(
        ArgumentError, match="transitions are given for 2 labels, and the token model has label 3"
    ):
        denominator(model, "hmm", transitions=[Transitions()] * 2)
    with pytest.raises(ArgumentError, match="order must be at least 1, got 0"):
        estimate_token_model(TRANSCRIPTS, order=0)
    with pytest.raises(ArgumentError, match="its order must be at least 2"):
        estimate_token_model(TRANSCRIPTS, order=1)
    with pytest.raises(ArgumentError, match="smoothing must be one of 'kneser-ney', 'witten-bell'"):
        estimate_token_model(TRANSCRIPTS, smoothing="none")
    with pytest.raises(DataError, match="the transcripts hold no token"):
        estimate_token_model([[], []])
