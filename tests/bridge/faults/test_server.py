"""The server goes away, comes back, comes back as another, or has a certificate that has expired."""

from __future__ import annotations

import datetime
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

import seqtrain as st
from seqtrain.aligner import AlignerClient, Credentials
from seqtrain.errors import AlignerMismatchError, AlignerUnavailableError
from seqtrain.lexicon import AutomatonBuilder, HmmTopology, read_lexicon
from sprint_bridge.process import BridgeProcess
from tests.aligner.test_training import STEPS, Trainer
from tests.bridge.faults.service import SLACK
from tests.bridge.toy import TRANSCRIPTS, write_config

START_SECONDS = 30.0
"""What a start of the service may take on a busy machine."""


def crash(bridge: BridgeProcess) -> None:
    assert bridge.pid is not None
    os.kill(bridge.pid, signal.SIGKILL)
    os.waitid(os.P_PID, bridge.pid, os.WEXITED | os.WNOWAIT)


def test_the_server_is_killed_and_stopped_and_started_again_during_training(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    topology = HmmTopology(states_per_phone=2, phone=st.fsa.Transitions.from_probabilities(loop=0.6))
    local = AutomatonBuilder(read_lexicon(tmp_path / "lexicon.txt"), topology, TRANSCRIPTS)
    undisturbed = Trainer(local, len(local.inventory))
    wanted = [undisturbed.step(tags) for tags in STEPS]

    with (
        BridgeProcess(config) as bridge,
        AlignerClient(bridge.target, timeout=2 * START_SECONDS, cache_bytes=0, prefetch_depth=2) as client,
    ):
        ways: dict[int, Callable[[BridgeProcess], None]] = {2: crash, 5: BridgeProcess.stop}
        trainer = Trainer(client, len(client.inventory()))
        client.prefetch(STEPS)
        losses, seconds = [], []
        for index, tags in enumerate(STEPS):
            starting = threading.Thread(target=bridge.start)
            if index in ways:
                ways[index](bridge)
                starting.start()  # while the step waits, and what was prefetched is gone
            began = time.monotonic()
            losses.append(trainer.step(tags))
            seconds.append(time.monotonic() - began)
            if index in ways:
                starting.join()
                bridge.check()
    # The same numbers to the last bit, each step late by a start of the service at most.
    assert losses == wanted
    assert all(took < START_SECONDS + SLACK for took in seconds)
    assert all(took < SLACK for index, took in enumerate(seconds) if index not in ways)


def test_servers_of_different_configurations_at_once_and_one_after_the_other(tmp_path: Path) -> None:
    first, second = tmp_path / "a.sock", tmp_path / "b.sock"
    config = write_config(tmp_path, listen=f"unix:{first}")
    other = write_config(tmp_path, listen=f"unix:{second}")
    other["backend"]["topology"]["phone"]["loop_probability"] = 0.5
    with AlignerClient(f"unix:{first}", timeout=START_SECONDS) as client, BridgeProcess(other):
        with BridgeProcess(config):
            before = client.automata(STEPS[0])
            digest = client.server_info().config_digest
            with AlignerClient([f"unix:{first}", f"unix:{second}"], timeout=10.0, cache_bytes=0) as mixed:
                began = time.monotonic()
                with pytest.raises(AlignerMismatchError, match="aren't alike: the configuration") as caught:
                    _ask_all(mixed)
                assert time.monotonic() - began < SLACK, "not retried"
                for part in (str(first), str(second), digest[:12]):
                    assert part in str(caught.value)
        # Now the other one stands where the first one was.
        second.rename(first)
        began = time.monotonic()
        with pytest.raises(AlignerMismatchError, match=f"the configuration has changed: .*{digest[:12]}"):
            client.automata(STEPS[1])
        assert time.monotonic() - began < SLACK, "not retried"
        # Not one automaton of the other configuration has come in; those of this one are still good.
        for one, same in zip(client.automata(STEPS[0]), before, strict=True):
            assert one.equal(same)


def test_a_certificate_that_has_expired(tmp_path: Path) -> None:
    ca = trustme.CA()
    ago = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    certificate = ca.issue_cert("localhost", not_after=ago)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "server.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "server.key"))
    (tmp_path / "server.key").chmod(0o600)
    tls = {"certificate": str(tmp_path / "server.pem"), "key": str(tmp_path / "server.key")}
    config = write_config(tmp_path, listen="localhost:0", tls=tls)
    with (
        BridgeProcess(config) as bridge,
        AlignerClient(bridge.target, timeout=1.0, credentials=Credentials(tmp_path / "ca.pem")) as client,
    ):
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(
                AlignerUnavailableError, match=r"not reachable.*(certificate|CERTIFICATE|handshake)"
            ):
                client.automata(STEPS[0])
            assert time.monotonic() - began < 1.0 + SLACK
        bridge.check()  # the server itself goes on


def _ask_all(client: AlignerClient) -> None:
    for tags in STEPS:
        assert client.automata(tags).tags == tuple(tags)
