"""Sums, posteriors, gradients, best paths and MWER against k2: relative 1e-6 in double, 1e-4 in float."""

from __future__ import annotations

import os
from typing import Any

import k2
import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain.fsa import FsaBatch, from_k2, k2_attributes, to_k2
from tests.k2.graphs import FRAMES, LENGTHS, NUM_LABELS, dense, graphs, lattice, quantized

SCORES = quantized(len(LENGTHS), FRAMES, NUM_LABELS, seed=1)
DOUBLE, FLOAT = 1e-6, 1e-4
PRECISIONS = [
    pytest.param(torch.float64, DOUBLE, id="double"),
    pytest.param(torch.float32, FLOAT, id="float"),
]


def ours() -> FsaBatch:
    """The graphs; with SEQTRAIN_PERTURB=1 one weight is off by 1/64, which must not go unnoticed."""
    batch = graphs()
    if os.environ.get("SEQTRAIN_PERTURB") == "1":
        weights = batch.weights.clone()
        weights[-2] += 1 / 64
        return batch.with_weights(weights)
    return batch


def theirs() -> Any:
    graph = to_k2(graphs())
    graph.arc = torch.arange(graph.scores.shape[0], dtype=torch.int32)
    graph.scores.requires_grad_(True)
    return graph


def assert_close(
    mine: torch.Tensor, k2s: torch.Tensor, tolerance: float, *, size: float | None = None
) -> None:
    """Differences relative to `size`, or to the largest number there: a posterior, an expected count, a score."""
    difference = float((mine.double() - k2s.double()).abs().max())
    size = float(k2s.double().abs().max()) if size is None else size
    assert difference <= tolerance * size, f"they differ by {difference:.2e}, sizes are up to {size:.2e}"


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_total_scores_and_all_gradients(dtype: torch.dtype, tolerance: float) -> None:
    graph, scores = theirs(), SCORES.clone().requires_grad_(True)
    total = lattice(graph, scores).get_tot_scores(use_double_scores=dtype == torch.float64, log_semiring=True)
    per_utterance = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=dtype)
    (total * per_utterance).sum().backward()

    batch = ours()
    weights, final_weights = (
        tensor.clone().requires_grad_(True) for tensor in (batch.weights, batch.final_weights)
    )
    my_scores = SCORES.to(dtype, copy=True).requires_grad_(True)
    value = st.full_sum(my_scores, LENGTHS, batch.with_weights(weights, final_weights))
    (value * per_utterance).sum().backward()

    assert_close(value.detach(), total.detach(), tolerance)
    assert_close(my_scores.grad, scores.grad, tolerance)
    gradient = from_k2_order(graph, graph.scores.grad)
    assert_close(torch.cat((weights.grad, final_weights.grad)), gradient, tolerance)


def from_k2_order(graph: Any, values: torch.Tensor) -> torch.Tensor:
    """One value for each arc of the k2 graph in the order of `graphs()`: arcs, then finals."""
    final = graph.arcs.values()[:, 2] == -1
    # Here all arcs are listed by source, as the test below checks.
    return torch.cat((values[~final], values[final]))


def test_the_order_of_arcs_is_kept_both_ways() -> None:
    batch = graphs()
    back = from_k2(to_k2(batch))
    for one, other in zip(batch, back, strict=True):
        assert one.equal(other)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_arc_posteriors(dtype: torch.dtype, tolerance: float) -> None:
    paths = lattice(theirs(), SCORES)
    posterior = paths.get_arc_post(use_double_scores=dtype == torch.float64, log_semiring=True).exp().double()
    utterance = paths.arcs.row_ids(1)[paths.arcs.row_ids(2).long()].long()
    consuming = paths.labels >= 0
    by_label = torch.zeros(len(LENGTHS), FRAMES, NUM_LABELS, dtype=torch.float64)
    place = (utterance[consuming], paths.frame[consuming].long(), paths.labels[consuming].long())
    by_label.index_put_(place, posterior[consuming].detach(), accumulate=True)
    assert_close(st.posteriors(SCORES.to(dtype), LENGTHS, ours()), by_label, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_best_paths(dtype: torch.dtype, tolerance: float) -> None:
    # Distinct numbers: without ties there is one best path.
    scores = SCORES + quantized(*SCORES.shape, seed=7, scale=0.1)
    best = k2.shortest_path(lattice(to_k2(graphs()), scores), use_double_scores=dtype == torch.float64)
    total = best.get_tot_scores(use_double_scores=dtype == torch.float64, log_semiring=False)
    path = st.best_path(scores.to(dtype), LENGTHS, ours())
    assert_close(path.score, total, tolerance)
    for b in range(len(LENGTHS)):
        labels = best[b].labels
        assert path.labels[b, : LENGTHS[b]].tolist() == labels[labels >= 0].tolist()


def test_ctc_loss() -> None:
    targets, target_lengths = (
        torch.tensor([[3, 3, 5], [1, 2, 0], [6, 0, 0], [4, 4, 0]]),
        torch.tensor([3, 2, 1, 2]),
    )
    log_probs = SCORES.log_softmax(dim=-1)
    symbols = [row[:n].tolist() for row, n in zip(targets, target_lengths, strict=True)]
    theirs_scores = log_probs.clone().requires_grad_(True)
    expected = k2.ctc_loss(k2.ctc_graph(symbols), dense(theirs_scores), output_beam=1e9, reduction="none")
    expected.sum().backward()
    mine = log_probs.double().requires_grad_(True)
    loss = st.ctc_loss(mine, targets, LENGTHS, target_lengths)
    loss.sum().backward()
    # The log-probabilities themselves aren't rounded here: k2 adds them to the graph's scores, which are 0.
    assert_close(loss.detach(), expected.detach(), DOUBLE)
    assert_close(mine.grad, theirs_scores.grad, DOUBLE)


@pytest.mark.parametrize("criterion", ["full_sum", "best_path", "posteriors", "fast_baum_welch", "viterbi"])
def test_criteria_take_k2s_graphs(criterion: str) -> None:
    function = {
        "full_sum": lambda *a: st.full_sum(*a),
        "best_path": lambda *a: st.best_path(*a).score,
        "posteriors": lambda *a: st.posteriors(*a),
        "fast_baum_welch": lambda *a: st.fast_baum_welch_loss(*a, tdp_scale=0.5),
        "viterbi": lambda *a: st.losses.viterbi_loss(*a),
    }[criterion]
    batch = graphs()
    assert torch.equal(function(SCORES, LENGTHS, to_k2(batch)), function(SCORES, LENGTHS, batch))
    shared = batch[2]
    assert torch.equal(function(SCORES, LENGTHS, to_k2(shared)), function(SCORES, LENGTHS, shared))


def test_the_loss_module_takes_k2s_graphs() -> None:
    loss = st.losses.FastBaumWelchLoss()
    assert torch.equal(loss(SCORES, LENGTHS, to_k2(graphs())), loss(SCORES, LENGTHS, graphs()))


def test_gradients_reach_the_scores_of_k2s_graph() -> None:
    mine, k2s = theirs(), theirs()
    st.full_sum(SCORES.double(), LENGTHS, mine).sum().backward()
    lattice(k2s, SCORES).get_tot_scores(use_double_scores=True, log_semiring=True).sum().backward()
    assert_close(mine.scores.grad, k2s.scores.grad, DOUBLE)


def test_one_graph_for_all_utterances_counts_for_all() -> None:
    shared = graphs()[2]
    mine = to_k2(shared)
    mine.scores.requires_grad_(True)
    value = st.full_sum(SCORES.double(), LENGTHS, mine)
    value.sum().backward()
    # k2 itself would return one lattice: its graphs have to be as many as the utterances.
    k2s = to_k2(FsaBatch.from_list([shared] * len(LENGTHS)))
    k2s.scores.requires_grad_(True)
    total = lattice(k2s, SCORES).get_tot_scores(use_double_scores=True, log_semiring=True)
    total.sum().backward()
    assert_close(value.detach(), total.detach(), DOUBLE)
    assert_close(mine.scores.grad, k2s.scores.grad.view(len(LENGTHS), -1).sum(dim=0), DOUBLE)


def test_mwer_over_all_paths() -> None:
    """k2 samples paths; with enough samples of a small lattice it has them all."""
    text = "0 1 1 11 0.5\n0 1 2 12 -0.25\n1 2 3 13 0.125\n1 2 4 14 -1\n2 3 1 11 0.75\n2 3 5 15 0\n3 4 -1 -1 0\n4\n"
    graph = k2.create_fsa_vec([k2.Fsa.from_str(text, num_aux_labels=1)])
    parameter = graph.scores.clone().requires_grad_(True)
    graph.scores = parameter * 1.0  # mwer_loss scales them in place, which a leaf forbids
    reference = [[11, 13, 15, 11]]
    expected = k2.mwer_loss(graph, reference, nbest_scale=0.1, num_paths=2000)
    expected.backward()

    weights = from_k2(graph)[0].weights.detach().double().requires_grad_(True)
    words = k2_attributes(graph).arcs["aux_labels"]
    paths = [[a, b, c] for a in (0, 1) for b in (2, 3) for c in (4, 5)]
    hypotheses = torch.stack([words[path] for path in paths]).long()
    losses = st.losses.edit_distance(
        hypotheses, torch.tensor(reference * len(paths)), torch.full((8,), 3), torch.full((8,), 4)
    )
    scores = torch.stack([weights[path].sum() for path in paths])[None]
    loss = st.losses.expected_loss(scores, losses.double()[None])
    loss.sum().backward()
    assert_close(loss.detach(), expected.detach(), DOUBLE)
    # k2 normalizes paths in float32, whatever it is told: weights times losses cancel to that precision.
    assert_close(weights.grad, parameter.grad[:-1], DOUBLE, size=float(losses.max()))


def test_infeasible_utterances_are_named_where_k2_returns_minus_infinity() -> None:
    lengths = torch.tensor([12, 10, 10, 3])
    total = lattice(to_k2(FsaBatch.from_list([graphs()[0]] * 4)), SCORES, lengths).get_tot_scores(True, True)
    assert total[3] == -np.inf
    with pytest.raises(st.errors.InfeasibleError, match="utterance 3: 3 frames given, needs 5"):
        st.full_sum(SCORES, lengths, to_k2(FsaBatch.from_list([graphs()[0]] * 4)))
