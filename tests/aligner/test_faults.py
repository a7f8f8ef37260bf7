"""What goes wrong between client and service ends in a typed error within the deadline."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from seqtrain.aligner import AlignerClient
from seqtrain.errors import (
    AlignerError,
    AlignerMismatchError,
    AlignerTimeoutError,
    AlignerUnavailableError,
)
from sprint_bridge.server import AlignerServer
from tests.bridge.toy import TOPOLOGY, builder, serve

SLACK = 2.0  # seconds beyond the deadline, for a busy machine


@pytest.fixture
def silent(address: str) -> Iterator[str]:
    """A server that accepts connections and never says a word."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address.removeprefix("unix:"))
        listener.listen()
        yield address


def test_a_server_that_never_answers(silent: str) -> None:
    with AlignerClient(silent, timeout=0.5) as client:
        for call in (
            client.server_info,
            client.inventory,
            lambda: client.automata(["a"]),
            client.wait_until_ready,
        ):
            began = time.monotonic()
            with pytest.raises(AlignerTimeoutError, match=r"after \d\.\d s: .*the service hangs") as caught:
                call()
            assert 0.4 < time.monotonic() - began < 0.5 + SLACK
            assert caught.value.target == silent


def test_no_server(address: str) -> None:
    with AlignerClient(address, timeout=0.5) as client:
        began = time.monotonic()
        with pytest.raises(
            AlignerUnavailableError, match=r"not reachable for \d\.\d s.*is the service running"
        ):
            client.automata(["a"])
        assert 0.4 < time.monotonic() - began < 0.5 + SLACK
        with pytest.raises(AlignerUnavailableError, match="no health"):
            client.wait_until_ready(0.1)


def test_a_server_that_is_loading(address: str) -> None:
    with AlignerServer(listen=address), AlignerClient(address, timeout=0.4) as client:
        began = time.monotonic()
        with pytest.raises(AlignerTimeoutError, match=r"still loading after 0\.4 s"):
            client.wait_until_ready()
        assert time.monotonic() - began < 0.4 + SLACK
        with pytest.raises(AlignerUnavailableError, match="the server is loading"):
            client.automata(["toy/1"])


def test_a_restarted_service_is_found_again(server: AlignerServer, address: str) -> None:
    with AlignerClient(address, timeout=20.0) as client:
        client.automata(["toy/1"])
        server.stop()
        again: list[AlignerServer] = []
        timer = threading.Timer(0.5, lambda: again.append(serve(address)))
        timer.start()
        began = time.monotonic()
        assert client.automata(["toy/2"])[0].equal(builder().build("one two three"))
        assert time.monotonic() - began < 5.0
        timer.join()
        again[0].stop()


def test_another_configuration_is_refused(server: AlignerServer, address: str) -> None:
    with AlignerClient(address, timeout=10.0) as client:
        client.automata(["toy/1"])
        before = client.server_info().config_digest
        server.stop()
        other = serve(address, topology=dataclasses.replace(TOPOLOGY, silence_probability=0.25))
        for call in (lambda: client.automata(["toy/2"]), client.server_info, client.inventory):
            with pytest.raises(AlignerMismatchError, match=f"the configuration has changed: .*{before[:12]}"):
                call()
        # What was fetched before is as good as it was.
        assert client.automata(["toy/1"])[0].equal(builder().build("one two"))
        other.stop()


def test_other_labels_are_refused(
    server: AlignerServer, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with AlignerClient(address, timeout=10.0) as client:
        client.inventory()
        server.stop()
        topology = dataclasses.replace(TOPOLOGY, states_per_phone=1)
        monkeypatch.setattr("seqtrain.lexicon.AutomatonBuilder.digest", builder().digest)
        other = serve(address, topology=topology)
        with pytest.raises(AlignerMismatchError, match="the label inventory has changed"):
            client.automata(["toy/2"])
        other.stop()


def test_a_server_with_a_bug(server: AlignerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("sprint_bridge.backends.local.LocalBackend.automata", fail)
    with AlignerClient(server.target) as client:
        began = time.monotonic()
        with pytest.raises(AlignerError, match=r"oops.*UNKNOWN.*this is a bug"):
            client.automata(["toy/1"])
        assert time.monotonic() - began < SLACK


def in_child(client: AlignerClient, pipe: Connection) -> None:
    """What a forked worker would do."""
    began = time.monotonic()
    errors = []
    for call in (
        lambda: client.automata(["toy/1"]),
        lambda: client.prefetch([["toy/1"]]),
        client.inventory,
        client.server_info,
        client.wait_until_ready,
        lambda: AlignerClient(client.target).automata(["toy/1"]),
    ):
        try:
            call()
        except AlignerError as error:
            errors.append(str(error))
    client.close()
    pipe.send((errors, time.monotonic() - began))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_child_gets_an_error_and_never_hangs(client: AlignerClient) -> None:
    client.prefetch([["toy/1"], ["toy/2"]])
    client.automata(["toy/1"])
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=in_child, args=(client, sender))
    child.start()
    assert receiver.poll(20)
    errors, seconds = receiver.recv()
    child.join(20)
    assert child.exitcode == 0
    assert len(errors) == 6
    for error in errors:
        assert f"belongs to process {os.getpid()}" in error
        assert "multiprocessing_context='spawn'" in error
    assert seconds < 5.0
    # The parent goes on as if nothing had happened.
    assert len(client.automata(["toy/2", "toy/3"])) == 2
