"""Each engine behind `sprint-bridge serve`, a process, from a configuration in YAML to a client's automata."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from prometheus_client.parser import text_string_to_metric_families

from seqtrain.align.sprint_cache import open_archive, read_alignment
from seqtrain.aligner import AlignerClient
from seqtrain.errors import AlignerItemError, AlignerUnavailableError
from seqtrain.lexicon import AutomatonBuilder, RnaTopology, read_lexicon, read_transcripts
from seqtrain.lexicon.rasr import RasrAutomatonBuilder
from sprint_bridge.backends.base import Orthography, Segment
from sprint_bridge.backends.load import load_backend
from sprint_bridge.config import ServeConfig, dump_config, parse_config
from sprint_bridge.process import BridgeProcess
from tests.bridge import test_librasr as librasr
from tests.bridge import test_pocketsphinx_backend as pocketsphinx
from tests.bridge.stand_in import GOLDENS, LEXICON, QUICK, install, install_returnn, orthographies
from tests.bridge.test_sprint_backend import golden
from tests.bridge.toy import TRANSCRIPTS, write_config

SEGMENTS = list(orthographies())
WORKER = {**QUICK, "start_timeout": 60.0}


@contextmanager
def service(folder: Path, backend: Mapping[str, Any], **server: Any) -> Iterator[AlignerClient]:
    """A client of a service, whose configuration stands in a file."""
    path = folder / "bridge.yaml"
    path.write_text(yaml.safe_dump({"backend": dict(backend), "drain_seconds": 1.0, **server}))
    with BridgeProcess(path) as bridge, AlignerClient(bridge.target, timeout=20.0) as client:
        yield client


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def metrics(port: int) -> dict[str, float]:
    """What the server counts, by name; labels other than the pool are left out."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        sample.name.removeprefix("seqtrain_aligner_") + "".join(sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.parametrize("variant", ["tri1_mono", "rna"])
def test_rasrs_own_configuration(tmp_path: Path, variant: str) -> None:
    config = GOLDENS / "setup" / f"{variant}.config"
    # One segment has a word that the lexicon with a blank lacks; RASR skips it.
    builder = RasrAutomatonBuilder.from_config(config, unknown_words="skip")
    backend = {"type": "local", "rasr_config": str(config), "unknown_words": "skip"}
    with service(tmp_path, backend) as client:
        assert client.inventory() == builder.inventory
        assert client.server_info().config_digest == builder.digest
        served, built = client.automata(SEGMENTS), builder.automata(SEGMENTS)
    arrays = np.load(GOLDENS / "fsa" / f"{variant}.npz")
    for name, fsa, other in zip(SEGMENTS, served, built, strict=True):
        assert fsa.equal(other)
        edges = arrays[f"{name}|edges"].T
        np.testing.assert_array_equal(fsa.arcs.numpy(), edges)
        np.testing.assert_allclose(fsa.weights.numpy(), -arrays[f"{name}|weights"], rtol=0, atol=1e-6)


def test_cached_alignments_of_a_folder_that_is_allowed(tmp_path: Path) -> None:
    with open_archive(GOLDENS / "align" / "mono3.viterbi_emission.cache") as archive:
        wanted = {name: read_alignment(archive, name).labels.tolist() for name in archive}
    backend = {
        "type": "local",
        "rasr_config": str(GOLDENS / "setup" / "mono3.config"),
        "cache_folders": str(GOLDENS / "align"),
        "alignments": str(GOLDENS / "align" / "mono3.viterbi_emission.cache"),
    }
    with service(tmp_path, backend) as client:
        found = client.alignments(SEGMENTS)
        for row, length, name in zip(found.labels, found.lengths, SEGMENTS, strict=True):
            assert row[:length].tolist() == wanted[name]
        with pytest.raises(AlignerItemError, match="no alignment among 6"):
            client.alignments(["toy/nope"])


def test_a_link_out_of_the_folders_allowed(tmp_path: Path) -> None:
    caches = tmp_path / "caches"
    caches.mkdir()
    (caches / "link.cache").symlink_to(GOLDENS / "align" / "mono3.viterbi_emission.cache")
    (caches / "list.bundle").write_text(f"{GOLDENS / 'align' / 'mono3.viterbi_emission.cache'}\n")
    backend = {"rasr_config": str(GOLDENS / "setup" / "mono3.config"), "cache_folders": "caches"}
    for name in ("caches/link.cache", "caches/list.bundle", "caches/../../out.cache"):
        with (
            pytest.raises(
                AlignerUnavailableError, match="lies outside of the folders that archives may come"
            ),
            service(tmp_path, {**backend, "alignments": name}),
        ):
            pass


def test_local_in_worker_processes_is_local(tmp_path: Path) -> None:
    plain = write_config(tmp_path)["backend"]
    names = [name for name in TRANSCRIPTS if name != "toy/oov"]
    port = free_port()
    with service(tmp_path, plain) as here:
        wanted, digest = here.automata(names), here.server_info().config_digest
    hosted = {**plain, "instances": 2, "worker": WORKER}
    with service(tmp_path, hosted, metrics=f"127.0.0.1:{port}") as client:
        assert client.server_info().config_digest == digest
        found = client.automata(names)
        with pytest.raises(AlignerItemError, match="'nine', 'ten'"):
            client.automata(["toy/oov"])
        scores = torch.randn(2, 30, len(client.inventory())).log_softmax(-1)
        losses = client.error_signals(["toy/1", "toy/2"], scores, torch.tensor([30, 20]))
        assert losses.losses.isfinite().all()
        counted = metrics(port)
    assert all(fsa.equal(other) for fsa, other in zip(found, wanted, strict=True))
    assert (
        counted["workerslocal"] == counted["workers_alivelocal"] == counted["worker_starts_totallocal"] == 2
    )
    assert counted["items_answered_totallocal"] == len(names) + 3
    assert (counted["cache_hits_total"], counted["cache_misses_total"]) == (0, len(names) + 1)


def test_rna(tmp_path: Path) -> None:
    plain = {**write_config(tmp_path)["backend"], "topology": {"type": "rna"}}
    builder = AutomatonBuilder(
        read_lexicon(tmp_path / "lexicon.txt"),
        RnaTopology(),
        read_transcripts(tmp_path / "transcripts.jsonl"),
    )
    with service(tmp_path, plain) as client:
        assert client.server_info().config_digest == builder.digest
        for name in ("toy/1", "toy/empty"):
            assert client.automata([name])[0].equal(builder.automata([name])[0])


def test_sprint(tmp_path: Path) -> None:
    stand_in = install(tmp_path, misbehave={SEGMENTS[0]: "kill-once", SEGMENTS[1]: "abort"})
    port = free_port()
    backend = {
        "type": "sprint",
        "executable": "nn-trainer.stand-in",
        "arguments": ["--config=stand-in.config"],
        "labels": "labels.txt",
        "silence": "[SILENCE]",
        "lexicon": str(LEXICON),
        "environment": dict(stand_in.environment),
        "instances": 2,
        "worker": WORKER,
    }
    with service(tmp_path, backend, metrics=f"127.0.0.1:{port}") as client:
        assert client.server_info().backend == "sprint"
        for _ in range(2):
            partial = client.automata_partial(SEGMENTS)
            assert partial.kept == (0, 2, 3, 4, 5)
            for fsa, place in zip(partial.automata, partial.kept, strict=True):
                assert fsa.equal(golden(SEGMENTS[place]))
        assert partial.errors[0].status == "quarantined"
        # Another client, whose own memory is empty: the server has them still.
        with AlignerClient(client.target, timeout=20.0) as other:
            other.automata([SEGMENTS[0], SEGMENTS[3]])
        counted = metrics(port)
    assert counted["worker_crashes_totalsprint"] == 3
    assert counted["worker_starts_totalsprint"] - counted["worker_restarts_totalsprint"] == 2
    assert counted["items_quarantinedsprint"] == 1
    assert counted["items_retried_totalsprint"] == 2
    assert counted["queue_lengthsprint"] == 0
    assert counted["cache_hits_total"] == 2
    assert counted["cache_entries"] == 5


def test_returnns_control_module(tmp_path: Path) -> None:
    stand_in = install(tmp_path)
    install_returnn(tmp_path)
    backend = {
        "type": "returnn_control",
        "executable": "nn-trainer.stand-in",
        "arguments": ["--config=stand-in.config"],
        "returnn": "returnn-root",
        "labels": "labels.txt",
        "silence": "[SILENCE]",
        "environment": {**stand_in.environment, "EVIL": str(tmp_path / "evil")},
        "worker": WORKER,
    }
    with service(tmp_path, backend) as client:
        assert client.server_info().backend == "returnn-control"
        for fsa, name in zip(client.automata(SEGMENTS), SEGMENTS, strict=True):
            assert fsa.equal(golden(name))


def test_librasr(tmp_path: Path) -> None:
    config = ServeConfig(backend=librasr.config(tmp_path))
    with service(tmp_path, dump_config(config)["backend"]) as client:  # type: ignore[arg-type]
        for fsa, name in zip(client.automata(SEGMENTS), SEGMENTS, strict=True):
            assert fsa.equal(golden(name))


def test_pocketsphinx(tmp_path: Path) -> None:
    manifest, _ = pocketsphinx.corpus(tmp_path)
    backend = {
        "type": "pocketsphinx",
        "manifest": str(manifest),
        "pronunciations": "extra.txt",
        "frame_shift": 0.03,
        "worker": WORKER,
    }
    with service(tmp_path, backend) as client:
        labels = client.inventory().labels
        found = client.alignments(["a", "b"])
        assert found.lengths[0] == found.lengths[1]
        said = {labels[label] for label in found.labels[0].tolist()}
        assert said == {"[SILENCE]", *pocketsphinx.SAID}


def test_an_engine_that_cannot_start_ends_the_service(tmp_path: Path) -> None:
    backend = {"type": "sprint", "executable": "missing", "labels": "labels.txt", "worker": WORKER}
    (tmp_path / "labels.txt").write_text("a\n")
    with (
        pytest.raises(AlignerUnavailableError, match=r"ended with status 2 .*\n.*missing"),
        service(tmp_path, backend),
    ):
        pass


@pytest.mark.parametrize("rasr", [False, True])
def test_the_longest_transcripts_are_begun_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rasr: bool
) -> None:
    costs: list[Any] = []
    monkeypatch.setattr("sprint_bridge.backends.local.host_engine", lambda *_, cost, **__: costs.append(cost))
    plain = (
        {"rasr_config": str(GOLDENS / "setup" / "mono3.config")}
        if rasr
        else write_config(tmp_path)["backend"]
    )
    load_backend(parse_config({"backend": {**plain, "instances": 2}}, folder=tmp_path).backend)
    (cost,) = costs
    for name, text in (orthographies() if rasr else TRANSCRIPTS).items():
        assert cost(Segment(name)) == len(text)
    assert cost(Segment("nowhere")) == 0
    assert cost(Orthography("one two")) == 7
