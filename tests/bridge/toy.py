"""A toy corpus, and services of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seqtrain.fsa import Transitions
from seqtrain.lexicon import AutomatonBuilder, HmmTopology, Lexicon, Pronunciation
from sprint_bridge.backends.local import LocalBackend
from sprint_bridge.config import Limits
from sprint_bridge.server import AlignerServer

LEXICON = Lexicon(
    {
        "one": [["W", "AH", "N"]],
        "two": [["T", "UW"], Pronunciation(("T", "AH"), -0.5)],
        "three": [["TH", "R", "IY"]],
    }
)
TOPOLOGY = HmmTopology(
    states_per_phone=2,
    phone=Transitions.from_probabilities(loop=0.6),
    silence=Transitions.from_probabilities(loop=0.8),
)
TRANSCRIPTS = {
    **{f"toy/{number}": " ".join(["one", "two", "three"][: 1 + number % 3]) for number in range(40)},
    "toy/empty": "",
    "toy/oov": "one nine two ten",
}


def builder(topology: HmmTopology = TOPOLOGY) -> AutomatonBuilder:
    """What a toy service builds with."""
    return AutomatonBuilder(LEXICON, topology, TRANSCRIPTS)


def serve(
    listen: str,
    *,
    topology: HmmTopology = TOPOLOGY,
    limits: Limits | None = None,
    alignments: Any = None,
    **options: Any,
) -> AlignerServer:
    """A service in this process, ready."""
    server = AlignerServer(listen=listen, limits=limits, **options)
    server.start()
    server.serve(LocalBackend(builder(topology), alignments))
    return server


def write_config(folder: Path, **changes: Any) -> dict[str, Any]:
    """Files of the toy corpus, and a configuration that serves them."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["one W AH N", "two T UW", "three TH R IY"]
    (folder / "lexicon.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    lines = [json.dumps({"id": tag, "text": text}) for tag, text in TRANSCRIPTS.items()]
    (folder / "transcripts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "backend": {
            "lexicon": str(folder / "lexicon.txt"),
            "transcripts": str(folder / "transcripts.jsonl"),
            "topology": {"states_per_phone": 2, "phone": {"loop_probability": 0.6}},
        },
        "drain_seconds": 2.0,
        **changes,
    }
