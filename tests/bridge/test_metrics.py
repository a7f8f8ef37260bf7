"""Counters of a server, and its logs."""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from seqtrain.aligner import AlignerClient
from seqtrain.errors import AlignerError, AlignerItemError, ConfigError
from sprint_bridge.logs import JsonFormatter
from sprint_bridge.metrics import Metrics, serve_metrics
from sprint_bridge.server import AlignerServer
from tests.bridge.toy import serve


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def server(tmp_path: Path, metrics: Metrics) -> Iterator[AlignerServer]:
    server = serve(f"unix:{tmp_path}/a.sock", metrics=metrics)
    yield server
    server.stop()


def test_calls_and_items_are_counted(server: AlignerServer, metrics: Metrics) -> None:
    with AlignerClient(server.target, timeout=5.0) as client:
        client.automata(["toy/1", "toy/2"])
        with pytest.raises(AlignerItemError):
            client.automata(["toy/oov"])
        client.inventory()
        with pytest.raises(AlignerError):
            client.alignments(["toy/1"])
    server.stop()

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert value("seqtrain_aligner_calls_total", method="GetAutomata", code="OK") == 2
    assert value("seqtrain_aligner_calls_total", method="GetLabelInventory", code="OK") == 1
    assert value("seqtrain_aligner_calls_total", method="GetAlignments", code="UNIMPLEMENTED") == 1
    assert value("seqtrain_aligner_call_seconds_count", method="GetAutomata") == 2
    assert value("seqtrain_aligner_calls_in_flight", method="GetAutomata") == 0
    assert value("seqtrain_aligner_items_total", status="ok") == 2
    assert value("seqtrain_aligner_items_total", status="out_of_vocabulary") == 1


def test_prometheus_can_read_them(metrics: Metrics) -> None:
    metrics.items.labels("ok").inc(3)
    with pytest.raises(ConfigError, match="metrics is 'nowhere'; it must be host:port"):
        serve_metrics(metrics, "nowhere")
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.listen()
        with pytest.raises(ConfigError, match=r"metrics can't be served on 127.0.0.1"):
            serve_metrics(metrics, f"127.0.0.1:{port}")
    stop = serve_metrics(metrics, f"127.0.0.1:{port}")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
    stop()
    assert families["seqtrain_aligner_items"].samples[0].value == 3


def test_logs_as_json() -> None:
    record = logging.LogRecord("sprint_bridge", logging.WARNING, "", 0, "worker %d was restarted", (3,), None)
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["level"], entry["logger"]) == ("WARNING", "sprint_bridge")
    assert entry["message"] == "worker 3 was restarted"
    try:
        raise ValueError("bad")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    assert "ValueError: bad" in json.loads(JsonFormatter().format(record))["exception"]
