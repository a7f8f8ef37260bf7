"""Everything compiles as one graph, and computes the same there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

import seqtrain as st
from seqtrain.errors import InfeasibleError
from seqtrain.losses import CTCLoss, FastBaumWelchLoss
from tests.ops.examples import offsets_of, packed_rows, random_ctc_batch, random_topology
from tests.ops.gradient import scores_gradient

pytestmark = pytest.mark.torch2

Function = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """What one test compiled is no cache for the next."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(function: Function, *, backend: str = "aot_eager") -> Function:
    """The function in one graph, or an error."""
    result: Function = torch.compile(function, fullgraph=True, backend=backend, dynamic=True)
    return result


def assert_compiles(function: Function, scores: torch.Tensor) -> None:
    """Value and gradient are bit-equal with and without a compiler."""
    eager = scores_gradient(function, scores)
    within = scores_gradient(compiled(function), scores)
    assert torch.equal(eager[0], within[0])
    assert torch.equal(eager[1], within[1])


@pytest.mark.parametrize("normalize", [False, True])
def test_ctc_loss(normalize: bool) -> None:
    scores, *rest = random_ctc_batch(1)
    assert_compiles(lambda x: st.ctc_loss(x, *rest, normalize=normalize), scores)


@pytest.mark.parametrize("reduction", ["none", "sum", "batch", "frames", "targets"])
def test_ctc_module_behind_a_layer(reduction: str) -> None:
    scores, *rest = random_ctc_batch(2)
    loss = CTCLoss(reduction=reduction)
    layer = torch.nn.Linear(scores.shape[2], scores.shape[2])
    assert_compiles(lambda x: loss(layer(x), *rest), scores)


def test_packed_ctc_loss() -> None:
    scores, targets, lengths, target_lengths = random_ctc_batch(3)
    offsets = offsets_of(lengths)
    assert_compiles(
        lambda x: st.ctc_loss(st.Packed(x, offsets), targets, lengths, target_lengths),
        packed_rows(scores, lengths),
    )


@pytest.mark.parametrize("name", ["ctc", "hmm"])
def test_full_sum(name: str) -> None:
    scores, lengths, graphs = random_topology(name, 4)
    assert_compiles(lambda x: st.full_sum(x, lengths, graphs), scores)


def test_full_sum_with_trainable_weights() -> None:
    scores, lengths, graphs = random_topology("hmm", 5)
    weights = graphs.weights.clone().requires_grad_()
    trainable = graphs.with_weights(weights)

    def function(x: torch.Tensor) -> torch.Tensor:
        return st.full_sum(x, lengths, trainable)

    (eager,) = torch.autograd.grad(function(scores).sum(), weights)
    (within,) = torch.autograd.grad(compiled(function)(scores).sum(), weights)
    assert torch.equal(eager, within)


def test_fast_baum_welch_module() -> None:
    scores, lengths, graphs = random_topology("hmm", 6)
    loss = FastBaumWelchLoss(am_scale=0.3, tdp_scale=0.5, prior=torch.zeros(8), prior_scale=0.2)
    assert_compiles(lambda x: loss(x, lengths, graphs), scores)


def test_posteriors_and_best_path() -> None:
    scores, lengths, graphs = random_topology("hmm", 7)
    assert torch.equal(
        compiled(lambda x: st.posteriors(x, lengths, graphs))(scores), st.posteriors(scores, lengths, graphs)
    )
    labels = compiled(lambda x: st.best_path(x, lengths, graphs).labels)(scores)
    assert torch.equal(labels, st.best_path(scores, lengths, graphs).labels)


def test_other_sizes_through_the_same_graph() -> None:
    first, *_ = random_ctc_batch(8)
    function = compiled(lambda x: st.ctc_loss(x, *rest).sum())
    for seed, frames in ((8, 24), (9, 31), (10, 40)):
        scores, *rest = random_ctc_batch(seed, frames=frames, batch=seed - 4)
        assert torch.equal(function(scores), st.ctc_loss(scores, *rest).sum())
    assert first.shape[1] == 24


def test_infeasible_utterances_are_found_in_a_compiled_function() -> None:
    scores, targets, lengths, target_lengths = random_ctc_batch(11)
    short = torch.zeros_like(lengths)
    function = compiled(lambda x: st.ctc_loss(x, targets, short, target_lengths))
    with pytest.raises(InfeasibleError, match="0 frames given, needs"):
        function(scores)


# Torch's own compiler imports what torch itself has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.timeout(240)
def test_a_training_step_through_the_default_backend() -> None:
    """Inductor: a layer and the loss in one graph, laid out by the compiler."""
    scores, *rest = random_ctc_batch(12)
    layer = torch.nn.Linear(scores.shape[2], scores.shape[2]).requires_grad_(False)

    def function(x: torch.Tensor) -> torch.Tensor:
        return st.ctc_loss(layer(x), *rest, normalize=True)

    value, gradient = scores_gradient(function, scores)
    within, gradient_within = scores_gradient(compiled(function, backend="inductor"), scores)
    torch.testing.assert_close(within, value)
    torch.testing.assert_close(gradient_within, gradient)


@pytest.mark.parametrize("policy", ["mask", "inf"])
def test_infeasible_utterances_are_counted_and_logged_in_compiled_code(
    policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    scores, targets, lengths, target_lengths = random_ctc_batch(13)
    lengths = lengths.clone()
    lengths[0] = 1
    loss = CTCLoss(on_infeasible=policy, reduction="none")
    function = compiled(lambda x: loss(x, targets, lengths, target_lengths))
    for calls in (1, 2):
        function(scores)
        assert (loss.infeasible.infeasible, loss.infeasible.utterances) == (calls, 4 * calls)
    messages = [record.getMessage() for record in caplog.records if record.name == "seqtrain"]
    assert messages == [f"1 of 4 utterances have no path (on_infeasible={policy!r}): 0"] * 2
