"""RETURNN's Sprint client and control module, and ours, each with the other's counterpart; a stand-in for Sprint.

    python -m tests.returnn_sprint.compare PYTHON_OF_RETURNN

1. Automata and losses that RETURNN's client gets from the executable under RETURNN's control module are those that our
   engine gets from the same executable under ours.
2. Our client of RETURNN's protocol gets them from the executable under RETURNN's control module.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from seqtrain.errors import UnknownSegmentError
from seqtrain.fsa import FsaBatch
from sprint_bridge.backends.base import Backend, BatchAutomata, BatchLosses, Segment
from sprint_bridge.backends.returnn_control import ReturnnControlBackend, ReturnnControlBackendConfig
from sprint_bridge.backends.sprint import SprintBackend, SprintLossConfig
from sprint_bridge.workers.settings import WorkerSettings
from tests.bridge.stand_in import QUICK, StandIn, install, orthographies

FRAMES = 80
SEGMENTS = list(orthographies())
WORKERS = WorkerSettings(**{**QUICK, "instances": 2, "ping_interval": 0.1})


def stand_in_for(folder: Path, python: Path) -> StandIn:
    """The executable, with RETURNN's interpreter in it."""
    stand_in = install(folder)
    script = stand_in.executable.read_text(encoding="utf-8").split("\n", 1)[1]
    stand_in.executable.write_text(f"#!{python}\n{script}", encoding="utf-8")
    return dataclasses.replace(stand_in, environment={})


def numpy_of(python: Path) -> str:
    command = [str(python), "-c", "import numpy; print(numpy.__version__)"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def returnn_root(python: Path) -> Path:
    command = [str(python), "-c", "import returnn; print(list(returnn.__path__)[0])"]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()).parent


def ask_returnn(python: Path, folder: Path, question: dict[str, Any]) -> dict[str, Any]:
    """What RETURNN's client gets."""
    (folder / "question.json").write_text(json.dumps(question), encoding="utf-8")
    program = Path(__file__).with_name("ask_returnn.py")
    command = [str(python), str(program), str(folder / "question.json"), str(folder / "answer.npz")]
    # RETURNN and its module in the executable say a lot.
    result = subprocess.run(
        command, timeout=120, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode != 0:
        raise AssertionError(f"RETURNN's client failed, status {result.returncode}:\n{result.stdout}")
    with np.load(folder / "answer.npz") as answer:
        return dict(answer)


def losses_of(backend: Backend, scores: np.ndarray[Any, Any]) -> BatchLosses:
    return backend.losses(
        SEGMENTS, [np.ascontiguousarray(scores[:, index]) for index in range(len(SEGMENTS))]
    )


def assert_same_automata(found: BatchAutomata, expected: FsaBatch, what: str) -> None:
    if any(found.errors) or len(found.automata) != len(expected):
        raise AssertionError(f"{what}: {found.errors}")
    for segment, one, other in zip(SEGMENTS, found.automata, expected, strict=True):
        if not one.equal(other):
            raise AssertionError(f"{what}, {segment}: {one} is not {other}")
    print(f"{what}: {len(expected)} automata, {len(expected.arcs)} arcs, equal bit for bit")


def assert_same_losses(found: BatchLosses, losses: Any, signals: Any, what: str) -> None:
    if any(found.errors):
        raise AssertionError(f"{what}: {found.errors}")
    np.testing.assert_array_equal(found.losses.astype(np.float32), losses)
    for index, signal in enumerate(found.signals):
        np.testing.assert_array_equal(signal, signals[:, index])
    print(f"{what}: {len(losses)} losses and error signals, equal bit for bit")


def compare(python: Path, folder: Path) -> None:
    """All of it; raises AssertionError where the two disagree."""
    stand_in = stand_in_for(folder, python)
    print(f"numpy {np.__version__} here, {numpy_of(python)} in the executable")
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(FRAMES, len(SEGMENTS), 34))
    scores = (logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)).astype(np.float32)
    np.save(folder / "scores.npy", scores)
    # RETURNN's module manages losses with a lattice processor only: without, it hands back bytes, which RASR refuses.
    corpus = (
        *stand_in.arguments,
        "--*.stand-in.loop=iterate-corpus",
        "--*.stand-in.lattice=true",
        f"--*.stand-in.frames={FRAMES}",
    )
    common = {"sprintExecPath": str(stand_in.executable), "minPythonControlVersion": 4, "numInstances": 2}
    answer = ask_returnn(
        python,
        folder,
        {
            "segments": SEGMENTS,
            "automata": {
                **common,
                "sprintConfigStr": shlex.join(stand_in.arguments),
                "usePythonSegmentOrder": False,
            },
            "losses": {**common, "sprintConfigStr": shlex.join(corpus), "usePythonSegmentOrder": True},
            "scores": str(folder / "scores.npy"),
        },
    )
    expected = FsaBatch.from_rasr(None, answer["edges"], answer["weights"], answer["start_end"])

    ours = SprintBackend(
        dataclasses.replace(stand_in.config(), workers=WORKERS, losses=SprintLossConfig(corpus, WORKERS))
    )
    try:
        items = [Segment(segment) for segment in SEGMENTS]
        assert_same_automata(ours.automata(items), expected, "our control module, our client")
        losses = losses_of(ours, scores)
        assert_same_losses(losses, answer["losses"], answer["signals"], "our control module, our client")
    finally:
        ours.close()

    config = ReturnnControlBackendConfig(
        executable=stand_in.executable,
        arguments=stand_in.arguments,
        returnn=returnn_root(python),
        labels=stand_in.labels,
        minimum_version=4,
        workers=WORKERS,
    )
    client = ReturnnControlBackend(config)
    try:
        what = "RETURNN's control module, our client"
        assert_same_automata(client.automata(items), expected, what)
        time.sleep(0.5)  # for a few pings
        (counters,) = client.counters().values()
        if counters.crashes or counters.alive != counters.instances:
            raise AssertionError(f"{what}: {counters}")
        (error,) = client.automata([Segment("toy/nope")]).errors
        if not isinstance(error, UnknownSegmentError):
            raise AssertionError(f"{what}: an unknown segment gives {error!r}")
    finally:
        client.close()
    client = ReturnnControlBackend(dataclasses.replace(config, arguments=corpus, losses=True))
    try:
        assert_same_losses(losses_of(client, scores), answer["losses"], answer["signals"], what)
    finally:
        client.close()


def main() -> None:
    python = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory(prefix="seqtrain-returnn-") as folder:
        compare(python, Path(folder))


if __name__ == "__main__":
    main()
