"""Loss and error signal from an aligner, which a stand-in is here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import seqtrain as st
from seqtrain.errors import ArgumentError, InfeasibleError, NonFiniteScoresError, ShapeError
from seqtrain.losses import ErrorSignals, ExternSprintLoss, FastBaumWelchLoss, extern_sprint_loss
from tests.fsa.strategies import quick
from tests.ops.examples import DTYPES, offsets_of, packed_rows, random_topology
from tests.ops.gradient import gradient, scores_gradient

LENGTHS = torch.tensor([4, 1, 3])
TAGS = ["a", "b", "c"]


class CrossEntropyAligner:
    """Answers with -Σ_t log p(1), and skips the utterances it is told to."""

    def __init__(self, skipped: Sequence[str] = ()) -> None:
        self.skipped = skipped
        self.asked: list[tuple[list[str], torch.Tensor]] = []

    def error_signals(
        self, tags: Sequence[str], log_posteriors: torch.Tensor, lengths: torch.Tensor
    ) -> ErrorSignals:
        self.asked.append((list(tags), log_posteriors))
        inside = torch.arange(log_posteriors.shape[1]) < lengths[:, None]
        losses = -(log_posteriors[:, :, 1] * inside).sum(1)
        signals = log_posteriors.exp()
        signals[:, :, 1] -= 1.0
        for b, tag in enumerate(tags):
            if tag in self.skipped:
                losses[b], signals[b] = torch.inf, torch.nan
        return ErrorSignals(losses, signals)


def random_logits(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(seed)).to(dtype)


def cross_entropy(logits: torch.Tensor) -> torch.Tensor:
    inside = torch.arange(4) < LENGTHS[:, None]
    return -(logits.log_softmax(-1)[:, :, 1] * inside).sum(1)


@quick
@given(seed=hs.integers(0, 2**32), dtype=hs.sampled_from(DTYPES))
def test_value_and_gradient_are_the_aligners(seed: int, dtype: torch.dtype) -> None:
    logits = random_logits(seed, dtype)
    found = scores_gradient(lambda x: extern_sprint_loss(x, LENGTHS, TAGS, CrossEntropyAligner()), logits)
    expected = scores_gradient(cross_entropy, logits.double())
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-5, atol=1e-5)
    tolerance = {torch.float16: 1e-3, torch.bfloat16: 1e-2}.get(dtype, 1e-6)
    torch.testing.assert_close(found[1].double(), expected[1], rtol=tolerance, atol=tolerance)
    assert found[1].dtype == dtype


def test_what_the_aligner_is_sent() -> None:
    aligner, logits = CrossEntropyAligner(), random_logits(1)
    logits[1, 1:] = torch.nan
    extern_sprint_loss(logits, LENGTHS, TAGS, aligner)
    ((tags, log_posteriors),) = aligner.asked
    assert tags == TAGS
    assert log_posteriors.dtype == torch.float32
    assert not log_posteriors[1, 1:].any()
    torch.testing.assert_close(log_posteriors[0], logits[0].log_softmax(-1))


def test_scaling_and_weights_of_utterances() -> None:
    leaf = random_logits(2, torch.float64).requires_grad_()
    weights = torch.tensor([2.0, 0.0, -1.0], dtype=torch.float64)
    losses = extern_sprint_loss(leaf, LENGTHS, TAGS, CrossEntropyAligner())
    (expected,) = torch.autograd.grad((weights * cross_entropy(leaf)).sum(), leaf)
    torch.testing.assert_close(gradient(losses, leaf, weights), expected, rtol=1e-6, atol=1e-6)


def test_packed_is_padded() -> None:
    logits = random_logits(3)
    packed = packed_rows(logits, LENGTHS).requires_grad_()
    scores = st.Packed(packed, offsets_of(LENGTHS))
    losses = extern_sprint_loss(scores, LENGTHS, TAGS, CrossEntropyAligner())
    expected = scores_gradient(lambda x: extern_sprint_loss(x, LENGTHS, TAGS, CrossEntropyAligner()), logits)
    assert torch.equal(losses, expected[0])
    assert torch.equal(gradient(losses, packed), packed_rows(expected[1], LENGTHS))


@pytest.mark.parametrize(("policy", "value"), [("mask", 0.0), ("inf", torch.inf)])
def test_a_skipped_utterance(policy: str, value: float) -> None:
    aligner, logits = CrossEntropyAligner(skipped=["b"]), random_logits(4)
    with pytest.raises(InfeasibleError, match=r"utterance 1 \(b\): 1 frames given: the aligner skipped it"):
        extern_sprint_loss(logits, LENGTHS, TAGS, aligner)
    module = ExternSprintLoss(aligner, on_infeasible=policy, reduction="none")
    losses, found = scores_gradient(lambda x: module(x, LENGTHS, TAGS), logits)
    assert losses[1].item() == value
    assert not found[1].any()
    assert module.infeasible.last_tags == ("b",)


def test_the_module() -> None:
    module, logits = ExternSprintLoss(CrossEntropyAligner()), random_logits(5)
    torch.testing.assert_close(module(logits, LENGTHS, TAGS), cross_entropy(logits).sum() / 3)
    assert repr(module) == "ExternSprintLoss(reduction='batch', on_infeasible='raise')"
    with pytest.raises(
        ArgumentError, match=r"source must have a method error_signals, .*; object has neither"
    ):
        ExternSprintLoss(object())  # type: ignore[arg-type]  # that is what is tested


class WrongAligner(CrossEntropyAligner):
    def error_signals(
        self, tags: Sequence[str], log_posteriors: torch.Tensor, lengths: torch.Tensor
    ) -> ErrorSignals:
        return ErrorSignals(torch.zeros(2), log_posteriors)


@pytest.mark.parametrize(
    ("changes", "error", "argument", "message"),
    [
        ({"tags": ["a"]}, ShapeError, "tags", "tags must name 3 utterances"),
        ({"tags": "abc"}, ShapeError, "tags", "tags must name 3 utterances, got 'abc'"),
        ({"lengths": torch.tensor([4, 1, 5])}, ShapeError, "lengths", r"lengths\[2\] = 5 must lie in 0 … 4"),
        ({"source": WrongAligner()}, ShapeError, "source", r"losses \(3,\) .* got \(2,\)"),
        ({"on_infeasible": "drop"}, ArgumentError, "on_infeasible", "got 'drop'"),
        ({"reduction": "targets"}, ArgumentError, "reduction", "got 'targets'"),
    ],
)
def test_bad_input(changes: dict[str, Any], error: type[ArgumentError], argument: str, message: str) -> None:
    arguments: dict[str, Any] = {
        "logits": random_logits(0), "lengths": LENGTHS, "tags": TAGS, "source": CrossEntropyAligner()
    }  # fmt: skip
    with pytest.raises(error, match=message) as caught:
        extern_sprint_loss(**arguments | changes)
    assert caught.value.argument == argument


def test_nan_is_found_before_the_aligner_is_asked() -> None:
    aligner, logits = CrossEntropyAligner(), random_logits(0)
    logits[2, 1, 0] = torch.nan
    with pytest.raises(NonFiniteScoresError, match=r"logits of utterance 2 hold NaN or .inf at frame 1"):
        extern_sprint_loss(logits, LENGTHS, TAGS, aligner)
    assert aligner.asked == []


def test_a_source_of_automata_alone_stands_for_the_full_sum() -> None:
    scores, lengths, graphs = random_topology("hmm", 1)

    class Builder:
        def automata(self, tags: Sequence[str]) -> st.fsa.FsaBatch:
            return graphs.with_tags(tags)

    names = ["a", "b", "c"]
    mine = scores_gradient(lambda x: ExternSprintLoss(Builder(), reduction="none")(x, lengths, names), scores)
    full = FastBaumWelchLoss(Builder(), reduction="none")
    wanted = scores_gradient(lambda x: full(x.log_softmax(-1), lengths, names), scores)
    torch.testing.assert_close(mine[0], wanted[0])
    torch.testing.assert_close(mine[1], wanted[1], rtol=0, atol=1e-5)
    short = lengths.clone()
    short[1] = 0
    with pytest.raises(InfeasibleError, match=r"utterance 1 \(b\): 0 frames given: .*no path fits"):
        ExternSprintLoss(Builder())(scores, short, names)
