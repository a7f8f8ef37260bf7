"""Configurations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from seqtrain.errors import ConfigError
from seqtrain.fsa import Transitions
from seqtrain.lexicon import CtcTopology, HmmTopology
from sprint_bridge.config import (
    Limits,
    LocalBackendConfig,
    ServeConfig,
    dump_config,
    parse_config,
    read_config,
)

YAML = """
listen: unix:/run/user/1000/aligner.sock
backend:
  type: local
  lexicon: lexicon.txt
  transcripts: [train.jsonl, /data/dev.jsonl]
  alignments: alignments.npz
  normalize_pronunciations: true
  topology:
    type: hmm
    states_per_phone: 1
    phone: {loop_probability: 0.6, skip_probability: 0.1}
    silence: {loop: -0.5, forward: -1, skip: -.inf}
    edge_silence_probability: 0.9
limits: {max_batch: 64}
threads: 2
"""


def minimal(**backend: Any) -> dict[str, Any]:
    return {"backend": {"lexicon": "l", "transcripts": "t", **backend}}


def test_yaml(tmp_path: Path) -> None:
    path = tmp_path / "bridge.yaml"
    path.write_text(YAML)
    assert read_config(path) == ServeConfig(
        listen="unix:/run/user/1000/aligner.sock",
        backend=LocalBackendConfig(
            lexicon=tmp_path / "lexicon.txt",
            transcripts=(tmp_path / "train.jsonl", Path("/data/dev.jsonl")),
            topology=HmmTopology(
                states_per_phone=1,
                phone=Transitions.from_probabilities(loop=0.6, skip=0.1),
                silence=Transitions(loop=-0.5, forward=-1.0),
                edge_silence_probability=0.9,
            ),
            normalize_pronunciations=True,
            alignments=(tmp_path / "alignments.npz",),
        ),
        limits=Limits(max_batch=64),
        threads=2,
    )


def test_json_and_back(tmp_path: Path) -> None:
    (tmp_path / "bridge.yaml").write_text(YAML)
    config = read_config(tmp_path / "bridge.yaml")
    for again in (
        config,
        ServeConfig(backend=LocalBackendConfig(Path("/l"), (Path("/t"),), CtcTopology("B"))),
    ):
        path = tmp_path / "again.json"
        path.write_text(json.dumps(dump_config(again)))
        assert read_config(path) == again


@pytest.mark.parametrize(
    ("values", "key", "message"),
    [
        ([], "", "the configuration must be a mapping"),
        ({}, "backend.lexicon", "backend.lexicon must be a string, found nothing"),
        ({**minimal(), "lisen": "x"}, "lisen", "lisen is unknown; known here are: backend, listen, tls"),
        ({**minimal(), "listen": 5}, "listen", "listen must be a string, found 5"),
        ({**minimal(), "threads": 0}, "threads", "threads must be an integer of at least 1, found 0"),
        ({**minimal(), "threads": True}, "threads", "found True"),
        (
            {**minimal(), "limits": {"max_batch": 1.5}},
            "limits.max_batch",
            "limits.max_batch must be an integer",
        ),
        ({**minimal(), "limits": {"batch": 1}}, "limits.batch", "limits.batch is unknown"),
        ({**minimal(), "limits": 3}, "limits", "limits must be a mapping"),
        ({**minimal(), "drain_seconds": -1}, "drain_seconds", r"a number in \[0, inf\], found -1"),
        (minimal(type="rasr"), "backend.type", "backend.type is 'rasr'; known are: local, sprint, ret"),
        (minimal(transcripts=[]), "backend.transcripts", "a path or a list of paths"),
        (minimal(lexicon_probabilities="yes"), "backend.lexicon_probabilities", "must be true or false"),
        (minimal(topology={"type": "fsa"}), "backend.topology.type", "'fsa'; known are: hmm, ctc, rna"),
        (minimal(topology={"phones": 3}), "backend.topology.phones", "is unknown"),
        (
            minimal(topology={"phone": {"loop_probability": 2}}),
            "backend.topology.phone.loop_probability",
            r"a number in \[0, 1\], found 2",
        ),
        (
            minimal(topology={"phone": {"loop_probability": 0.7, "skip_probability": 0.7}}),
            "backend.topology.phone.skip_probability",
            "must not exceed 1",
        ),
        (
            minimal(topology={"phone": {"loop_probability": 0.5, "forward": 0.5}}),
            "backend.topology.phone.forward",
            "is unknown",
        ),
        (minimal(topology={"phone": {"loop": math.inf}}), "backend.topology.phone.loop", "finite or -inf"),
        (
            minimal(topology={"silence_probability": "half"}),
            "backend.topology.silence_probability",
            "a number",
        ),
    ],
)
def test_errors_name_the_key(values: object, key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(values, folder=Path("/"))
    assert caught.value.key == key


def test_unreadable_configurations(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        read_config(tmp_path / "missing.json")
    for name, text, message in (
        ("a.json", "{", "isn't JSON"),
        ("a.yaml", "a: [", "isn't YAML"),
        ("b.yaml", "a: !!python/object/apply:os.system ['true']", "isn't YAML"),
        ("a.toml", "", r"must end in \.json, \.yaml or \.yml"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_config(tmp_path / name)
