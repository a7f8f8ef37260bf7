"""Configurations of the engines."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from seqtrain.errors import ConfigError
from seqtrain.fsa import Transitions
from seqtrain.lexicon import HmmTopology, RnaTopology
from sprint_bridge.backends.librasr import LibrasrBackendConfig
from sprint_bridge.backends.pocketsphinx import PocketsphinxBackendConfig
from sprint_bridge.backends.returnn_control import ReturnnControlBackendConfig
from sprint_bridge.backends.sprint import SprintBackendConfig, SprintLossConfig
from sprint_bridge.config import (
    BackendConfig,
    LocalBackendConfig,
    RasrSetup,
    ServeConfig,
    dump_config,
    parse_config,
    read_config,
)
from sprint_bridge.workers.settings import WorkerSettings

WORKERS = WorkerSettings(
    instances=3,
    item_timeout=1.5,
    start_timeout=2.5,
    start_attempts=4,
    restart_delay=0.25,
    longest_restart_delay=5.0,
    ping_interval=7.0,
    ping_timeout=8.0,
    stop_timeout=9.0,
    max_quarantined=11,
)
# Each field is set to something other than its default, so that one that is lost shows.
FULL: dict[str, BackendConfig] = {
    "local": LocalBackendConfig(
        lexicon=Path("/l.xml"),
        transcripts=(Path("/t"), Path("/u")),
        topology=HmmTopology(2, phone=Transitions(-0.5, -1.0, -math.inf), edge_silence_probability=0.25),
        lexicon_probabilities=True,
        normalize_pronunciations=True,
        alignments=(Path("/a.cache"), Path("/b.bundle")),
        cache_folders=(Path("/caches"),),
        allophones=Path("/allophones"),
        workers=WORKERS,
        log=Path("/log"),
    ),
    "local, rna": LocalBackendConfig(
        Path("/l"), (Path("/t"),), RnaTopology("B"), alignments=(Path("/a.npz"),)
    ),
    "local, rasr": LocalBackendConfig(
        rasr=RasrSetup(Path("/train.config"), {"SETUP": "/setup"}, "lib-rasr", "skip"), workers=WORKERS
    ),
    "sprint": SprintBackendConfig(
        executable=Path("/nn-trainer"),
        arguments=("--config=/train.config", "--*.x=yes"),
        labels=Path("/labels.txt"),
        silence="sil",
        blank="blank",
        lexicon=Path("/l.xml"),
        extra_words=("[SILENCE]",),
        alignment_cache=Path("/a.cache"),
        allophones=Path("/allophones"),
        probes=("one two",),
        digest_files=(Path("/tying"),),
        environment={"PYTHONPATH": "/numpy"},
        minimum_version=4,
        losses=SprintLossConfig(("--config=/losses.config",), WORKERS),
        workers=WORKERS,
        log=Path("/log"),
    ),
    "returnn_control": ReturnnControlBackendConfig(
        executable=Path("/nn-trainer"),
        arguments=("--config=/train.config",),
        returnn=Path("/returnn"),
        labels=Path("/labels.txt"),
        silence="sil",
        blank="blank",
        losses=True,
        control_options={"quiet": "True"},
        minimum_version=4,
        digest_files=(Path("/tying"),),
        environment={"PYTHONPATH": "/numpy"},
        max_message_bytes=1000,
        workers=WORKERS,
        log=Path("/log"),
    ),
    "librasr": LibrasrBackendConfig(
        configuration=Path("/rasr.config"),
        labels=Path("/labels.txt"),
        silence="sil",
        blank="blank",
        lexicon=Path("/l.xml"),
        extra_words=("[SILENCE]",),
        settings={"lib-rasr.x": "yes"},
        digest_files=(Path("/tying"),),
        environment={"PYTHONPATH": "/librasr"},
        workers=WORKERS,
        log=Path("/log"),
    ),
    "pocketsphinx": PocketsphinxBackendConfig(
        manifest=Path("/manifest.jsonl"),
        pronunciations=Path("/extra.txt"),
        frame_shift=0.03,
        states_per_phone=3,
        silence="sil",
        workers=WORKERS,
        log=Path("/log"),
    ),
}


@pytest.mark.parametrize("name", FULL)
def test_there_and_back(name: str) -> None:
    config = FULL[name]
    plain = dump_config(ServeConfig(backend=config))
    assert plain["backend"]["type"] == name.split(",")[0]  # type: ignore[index]
    written = json.dumps(plain, allow_nan=False)
    assert parse_config(json.loads(written), folder=Path("/nowhere")).backend == config


@pytest.mark.parametrize("name", ["local", "sprint", "returnn_control", "librasr", "pocketsphinx"])
def test_no_field_is_left_at_its_default_here(name: str) -> None:
    config = FULL[name]
    for field in dataclasses.fields(config):
        if field.name in ("rasr",):  # excludes the others; has a configuration of its own above
            continue
        default = (
            field.default_factory() if callable(field.default_factory) else field.default  # type: ignore[arg-type]
        )
        assert getattr(config, field.name) != default, field.name


def test_yaml(tmp_path: Path) -> None:
    (tmp_path / "bridge.yaml").write_text(
        """
backend:
  type: sprint
  instances: 4
  worker: {item_timeout: 20, max_quarantined: 5}
  executable: bin/nn-trainer
  arguments: [--config=train.config, "--*.LOGFILE=x"]
  labels: labels.txt
  losses: {instances: 2, arguments: [--config=losses.config]}
cache_bytes: 1000
"""
    )
    config = read_config(tmp_path / "bridge.yaml")
    assert config.cache_bytes == 1000
    # Relative paths start from the configuration's own folder, also the one inside --config=.
    assert config.backend == SprintBackendConfig(
        executable=tmp_path / "bin/nn-trainer",
        arguments=(f"--config={tmp_path}/train.config", "--*.LOGFILE=x"),
        labels=tmp_path / "labels.txt",
        losses=SprintLossConfig((f"--config={tmp_path}/losses.config",), WorkerSettings(instances=2)),
        workers=WorkerSettings(instances=4, item_timeout=20.0, max_quarantined=5),
    )


LOCAL = {"lexicon": "l", "transcripts": "t"}
SPRINT = {"type": "sprint", "executable": "x", "labels": "l"}
RETURNN = {"type": "returnn_control", "executable": "x", "labels": "l", "returnn": "r"}
SPHINX = {"type": "pocketsphinx", "manifest": "m"}


@pytest.mark.parametrize(
    ("backend", "key", "message"),
    [
        ({"rasr_config": "c", "lexicon": "l"}, "lexicon", "RASR's configuration says that; leave it out"),
        ({"rasr_config": "c", "topology": {}}, "topology", "leave it out with rasr_config"),
        ({"rasr_config": "c", "unknown_words": "drop"}, "unknown_words", "one of raise, skip, found 'drop'"),
        (
            {"rasr_config": "c", "rasr_variables": {"A": 1}},
            "rasr_variables.A",
            "a string .in quotes.*found 1",
        ),
        ({**LOCAL, "unknown_words": "skip"}, "unknown_words", "is unknown"),
        (
            {**LOCAL, "alignments": "a.cache"},
            "cache_folders",
            "must name the folders that alignment archives",
        ),
        ({**LOCAL, "instances": 0}, "instances", "an integer of at least 1, found 0"),
        (
            {**LOCAL, "worker": {"item_timeout": 0}},
            "worker.item_timeout",
            "a positive number of seconds, found 0",
        ),
        ({**LOCAL, "worker": {"item_timeout": "inf"}}, "worker.item_timeout", "positive number of seconds"),
        ({**LOCAL, "worker": {"timeout": 1}}, "worker.timeout", "is unknown; known here are: item_timeout"),
        ({**LOCAL, "worker": {"start_attempts": 1.5}}, "worker.start_attempts", "an integer of at least 1"),
        ({"type": "sprint", "labels": "l"}, "executable", "must be a string, found nothing"),
        ({**SPRINT, "arguments": "--config=x"}, "arguments", "must be a list of strings"),
        ({**SPRINT, "environment": ["A"]}, "environment", "must be a mapping of strings"),
        ({**SPRINT, "alignment_cache": "a"}, "allophones", "allophones is needed with alignment_cache"),
        ({**SPRINT, "losses": {"argument": []}}, "losses.argument", "is unknown; known here are: arguments"),
        ({**RETURNN, "control_options": {"a": "b,c"}}, "control_options.a", "may not hold a comma"),
        ({**RETURNN, "max_message_bytes": 1 << 31}, "max_message_bytes", r"must be in 1 … 2³¹ - 1"),
        ({**RETURNN, "losses": {}}, "losses", "must be true or false"),
        ({"type": "librasr", "labels": "l"}, "configuration", "must be a string, found nothing"),
        ({**SPHINX, "frame_shift": 0.015}, "frame_shift", "must be a multiple of 0.01 s"),
        ({**SPHINX, "states_per_phone": 2}, "states_per_phone", "must be 1 or 3, found 2"),
        ({**SPHINX, "lexicon": "l"}, "lexicon", "is unknown"),
    ],
)
def test_errors_name_the_key(backend: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config({"backend": backend}, folder=Path("/"))
    assert caught.value.key == f"backend.{key}"
    assert "backend" in str(caught.value)


def test_a_lexicon_or_a_setup_of_rasr() -> None:
    with pytest.raises(ConfigError, match="lexicon must be a file, or rasr a configuration"):
        LocalBackendConfig()
    with pytest.raises(ConfigError, match="names lexicon and corpus itself"):
        LocalBackendConfig(Path("/l"), (Path("/t"),), rasr=RasrSetup(Path("/c")))
