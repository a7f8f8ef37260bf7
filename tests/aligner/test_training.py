"""A criterion whose automata come from a service: the numbers, and a service that dies in the middle."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import seqtrain as st
from seqtrain.aligner import AlignerClient
from seqtrain.errors import AlignerItemError, AlignerUnavailableError
from seqtrain.fsa import FsaBatch
from seqtrain.lexicon import AutomatonBuilder, HmmTopology, Lexicon, read_lexicon
from sprint_bridge.process import BridgeProcess
from tests.bridge.toy import TRANSCRIPTS, builder, write_config

STEPS = [[f"toy/{4 * step + item}" for item in range(4)] for step in range(8)]


class Trainer:
    """A small model trained with automata from `source`; each step depends on all before it."""

    def __init__(self, source: AlignerClient | AutomatonBuilder, num_labels: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.features = torch.randn(4, 40, 5, generator=generator)
        self.lengths = torch.tensor([40, 36, 38, 30])
        self.weight = torch.randn(5, num_labels, generator=generator).requires_grad_()
        self.loss = st.losses.FastBaumWelchLoss(automata=source)
        self.optimizer = torch.optim.Adam([self.weight], lr=0.1)

    def step(self, tags: Sequence[str]) -> float:
        self.optimizer.zero_grad()
        loss = self.loss((self.features @ self.weight).log_softmax(dim=-1), self.lengths, tags)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def test_client_and_builder_are_interchangeable(client: AlignerClient) -> None:
    local = builder()
    assert isinstance(client.automata(STEPS[0]), FsaBatch)
    one, other = Trainer(local, len(local.inventory)), Trainer(client, len(client.inventory()))
    client.prefetch(STEPS)
    assert [one.step(tags) for tags in STEPS] == [other.step(tags) for tags in STEPS]
    with pytest.raises(AlignerItemError, match=r"'toy/oov'.*'nine', 'ten'"):
        other.step(["toy/1", "toy/2", "toy/3", "toy/oov"])


def test_a_service_killed_in_the_middle_of_training(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    lexicon: Lexicon = read_lexicon(tmp_path / "lexicon.txt")
    topology = HmmTopology(states_per_phone=2, phone=st.fsa.Transitions.from_probabilities(loop=0.6))
    local = AutomatonBuilder(lexicon, topology, TRANSCRIPTS)
    undisturbed = Trainer(local, len(local.inventory))
    wanted = [undisturbed.step(tags) for tags in STEPS]

    with (
        BridgeProcess(config) as bridge,
        AlignerClient(bridge.target, timeout=1.0, prefetch_depth=1) as client,
    ):
        trainer = Trainer(client, len(client.inventory()))
        losses = [trainer.step(tags) for tags in STEPS[:3]]
        assert bridge.pid is not None
        before = bridge.pid
        kill(bridge)
        began = time.monotonic()
        with pytest.raises(AlignerUnavailableError, match="not reachable"):
            trainer.step(STEPS[3])
        assert time.monotonic() - began < 3.0

        # Started again it has the same address; the same client and the same trainer go on.
        bridge.start()
        assert bridge.pid != before
        losses += [trainer.step(tags) for tags in STEPS[3:]]
    assert losses == wanted


def kill(bridge: BridgeProcess) -> None:
    """kill -9, and waits until it has taken effect."""
    assert bridge.pid is not None
    os.kill(bridge.pid, signal.SIGKILL)
    os.waitid(os.P_PID, bridge.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(AlignerUnavailableError, match="has ended with status -9"):
        bridge.check()
