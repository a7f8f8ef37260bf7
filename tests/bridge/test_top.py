"""The view of a running server."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from seqtrain.aligner import AlignerClient
from seqtrain.errors import AlignerUnavailableError, ConfigError
from sprint_bridge import cli
from sprint_bridge.metrics import Metrics, serve_metrics
from sprint_bridge.server import AlignerServer
from sprint_bridge.top import Sample, read_sample, report, show_report
from tests.bridge.test_pool import toy
from tests.bridge.test_serve_backends import free_port
from tests.bridge.toy_pool import wait_until


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def server(tmp_path: Path, address: str) -> Iterator[AlignerServer]:
    metrics = Metrics()
    server = AlignerServer(listen=f"unix:{tmp_path}/a.sock", metrics=metrics)
    server.start()
    server.serve(toy(instances=2))
    stop = serve_metrics(metrics, address)
    yield server
    stop()
    server.stop()


def test_what_a_server_has_done(
    server: AlignerServer, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_sample(address)
    with AlignerClient(server.target, timeout=20.0, cache_bytes=0) as client:
        client.automata_partial(["a", "kill", "x-unknown"])
        client.automata_partial(["a", "bb"])
        wait_until(lambda: report(read_sample(address))["pools"]["toy"]["alive"] == 2)
        assert cli.main(["top", address, "--once", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        client.automata(["bb"])
        later = report(read_sample(address), before)
    assert found["interval_seconds"] is None
    assert found["in_flight"] == 0
    call = found["calls"]["GetAutomata"]
    assert call["codes"] == {"OK": 2}
    assert call["per_second"] is None
    assert 0 < call["p50_ms"] <= call["p99_ms"] < 20_000
    assert {status: item["total"] for status, item in found["items"].items()} == {
        "ok": 3,
        "crashed": 1,
        "unknown_segment": 1,
    }
    pool = found["pools"]["toy"]
    assert (pool["workers"], pool["alive"], pool["crashes"], pool["quarantined"]) == (2, 2, 2, 1)
    cache = found["cache"]
    assert (cache["hits"], cache["misses"], cache["entries"]) == (1, 4, 2)
    assert cache["hit_rate"] == pytest.approx(0.2)
    assert later["calls"]["GetAutomata"]["per_second"] == pytest.approx(3 / later["interval_seconds"])
    assert later["items"]["ok"]["per_second"] == pytest.approx(4 / later["interval_seconds"])

    assert cli.main(["top", address, "--once"]) == 0
    page = capsys.readouterr().out
    assert "workers of toy: 2 of 2 up, 2 restarts, 2 crashes" in page
    assert "\x1b" not in page


def sample(time: float, counts: list[int], total: int) -> Sample:
    """Buckets up to 1, 2 and 4 s, and beyond."""
    values = {
        ("call_seconds_bucket", frozenset({("method", "M"), ("le", bound)})): float(count)
        for bound, count in zip(("1.0", "2.0", "4.0", "+Inf"), counts, strict=True)
    }
    values["calls_in_flight", frozenset({("method", "M")})] = 3.0
    values["call_seconds_count", frozenset({("method", "M")})] = float(total)
    return Sample(time, values)


def test_quantiles_and_rates() -> None:
    first = sample(10.0, [10, 20, 20, 20], 20)
    call = report(first)["calls"]["M"]
    assert (call["p50_ms"], call["p99_ms"]) == (1000.0, 1980.0)
    # Between two looks, only what came between them counts.
    second = sample(12.0, [10, 20, 30, 30], 30)
    call = report(second, first)["calls"]["M"]
    assert (call["p50_ms"], call["p99_ms"], call["per_second"]) == (3000.0, 3980.0, 5.0)
    # What took longer than the last bound took at least that.
    call = report(sample(14.0, [10, 20, 30, 40], 40), second)["calls"]["M"]
    assert call["p50_ms"] == 4000.0
    quiet = report(Sample(15.0, second.values), second)
    assert (quiet["calls"]["M"]["p50_ms"], quiet["calls"]["M"]["per_second"]) == (None, 0.0)
    assert quiet["in_flight"] == 3
    assert "M                            3       0.0         -         -" in show_report(quiet)


def test_addresses_that_have_no_counters(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="must be host:port"):
        read_sample("unix:/a")
    with pytest.raises(
        AlignerUnavailableError, match=f"no counters at {address}: .*refused.*`metrics: {address}`"
    ):
        read_sample(address)
    assert cli.main(["top", address, "--once"]) == 1
    assert "no counters at" in capsys.readouterr().err
    assert cli.main(["top", address, "--interval", "0"]) == 2
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(AlignerUnavailableError, match="timed out"):
            read_sample(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
