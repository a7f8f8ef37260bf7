"""Segments that an engine fails over: an error, or an utterance without a path, as the client is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from seqtrain.aligner import AlignerClient
from seqtrain.errors import (
    AlignerItemError,
    ArgumentError,
    InfeasibleError,
    QuarantinedError,
    SeqtrainError,
    SkippedError,
    WorkerCrashedError,
)
from seqtrain.fsa import FsaBatch
from seqtrain.losses import FastBaumWelchLoss
from sprint_bridge.backends.base import BatchAutomata, Orthography, Segment
from sprint_bridge.backends.local import LocalBackend
from sprint_bridge.server import AlignerServer
from tests.bridge.toy import builder

FAILING: dict[str, SeqtrainError] = {
    "toy/3": WorkerCrashedError("the engine died", segment="toy/3"),
    "toy/4": QuarantinedError("it has killed two engines", segment="toy/4"),
    "toy/5": SkippedError("no lattice", segment="toy/5"),
}
LABELS = len(builder().inventory)


class FailingBackend(LocalBackend):
    """Fails over some segments."""

    def automata(self, items: Sequence[Segment | Orthography]) -> BatchAutomata:
        errors = [FAILING.get(item.name) if isinstance(item, Segment) else None for item in items]
        answer = super().automata([i for i, error in zip(items, errors, strict=True) if error is None])
        others = iter(answer.errors)
        return BatchAutomata(
            answer.automata, tuple(next(others) if error is None else error for error in errors)
        )


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[str]:
    server = AlignerServer(listen=f"unix:{tmp_path}/a.sock")
    server.start()
    server.serve(FailingBackend(builder()))
    yield server.target
    server.stop()


@pytest.mark.parametrize(
    ("tag", "status"), [("toy/3", "crashed"), ("toy/4", "quarantined"), ("toy/5", "skipped")]
)
def test_an_error_that_names_the_segment(failing: str, tag: str, status: str) -> None:
    with AlignerClient(failing, timeout=5.0) as client:
        with pytest.raises(AlignerItemError, match=f"'{tag}': {status}: ") as caught:
            client.automata(["toy/1", tag])
        assert caught.value.status == status


def test_an_utterance_without_a_path_where_that_is_asked_for(
    failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    tags = ["toy/1", "toy/3", "toy/4", "toy/2"]
    scores = torch.randn(4, 40, LABELS).log_softmax(-1)
    lengths = torch.full((4,), 40)
    with AlignerClient(failing, timeout=5.0, failed_items="impossible") as client:
        with caplog.at_level(logging.WARNING, logger="seqtrain"):
            batch = client.automata(tags)
        assert "'toy/3': crashed" in caplog.records[0].getMessage()
        assert isinstance(batch, FsaBatch)
        assert batch.tags == tuple(tags)
        masked = FastBaumWelchLoss(client, reduction="none", on_infeasible="mask")
        losses = masked(scores, lengths, tags)
        wanted = FastBaumWelchLoss(builder(), reduction="none")(
            scores[[0, 3]], lengths[:2], ["toy/1", "toy/2"]
        )
        assert torch.equal(losses[[0, 3]], wanted)
        assert losses[1] == losses[2] == 0.0
        assert masked.infeasible.last_tags == ("toy/3", "toy/4")
        with pytest.raises(InfeasibleError, match=r"utterance 1 \(toy/3\)"):
            FastBaumWelchLoss(client)(scores, lengths, tags)
        with pytest.raises(AlignerItemError, match="nine"):
            client.automata(["toy/3", "toy/oov"])


def test_the_option_is_checked(failing: str) -> None:
    with pytest.raises(ArgumentError, match="failed_items must be 'raise' or 'impossible', got 'skip'"):
        AlignerClient(failing, failed_items="skip")
