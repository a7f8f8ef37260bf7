"""RETURNN's own way to an aligner, its Sprint pipe, beside ours, with the same executable and the same automata.

The executable stands in for RASR: it has its automata ready, and hands them out under RETURNN's control module, through
pickles in a pipe, or under ours, behind `sprint-bridge serve`. So this is the link alone; RASR itself makes 1000 to
2000 automata a second. Times are wall time, for an aligner is waited for.

RETURNN needs an environment of its own, with a numpy before 2.3: `tests/returnn_sprint/run` makes it.
"""

from __future__ import annotations

import json
import shlex
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.bridge import BATCH, batches, write_corpus
from benchmarks.report import parser, show
from seqtrain.aligner import AlignerClient
from seqtrain.fsa import Fsa
from seqtrain.lexicon import AutomatonBuilder, HmmTopology, read_lexicon, read_transcripts
from sprint_bridge.process import BridgeProcess

__all__ = ["default_python", "pipe_rows"]

ROOT = Path(__file__).resolve().parent.parent
STAND_IN = ROOT / "tests" / "bridge" / "stand_in_sprint.py"


def default_python() -> Path | None:
    """The interpreter that has RETURNN, where there is one."""
    python = ROOT / ".venv-returnn" / "bin" / "python"
    return python if python.exists() else None


def rasr_arrays(fsa: Fsa) -> dict[str, np.ndarray[Any, Any]]:
    """An automaton in RASR's layout: costs, and one end state, to which each arc into a final state is copied."""
    arcs, costs = fsa.arcs.numpy(), -fsa.weights.numpy()
    final = dict(zip(fsa.final_states.tolist(), fsa.final_weights.tolist(), strict=True))
    last = np.array([arc for arc in range(len(arcs)) if int(arcs[arc, 1]) in final])
    copies = arcs[last].copy()
    added = costs[last] - np.array([final[int(state)] for state in copies[:, 1]], dtype=np.float32)
    copies[:, 1] = fsa.num_states
    edges = np.concatenate([arcs, copies])
    return {
        "num_states": np.array(fsa.num_states + 1),
        "edges": edges.T.astype(np.uint32),
        "weights": np.concatenate([costs, added]).astype(np.float32),
    }


def install(folder: Path, python: Path, builder: AutomatonBuilder, names: Sequence[str]) -> list[str]:
    """Puts the executable, in RETURNN's interpreter, into a folder, with the automata of segments; its arguments."""
    executable = folder / "nn-trainer.stand-in"
    executable.write_text(f"#!{python}\n{STAND_IN.read_text(encoding='utf-8')}", encoding="utf-8")
    executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
    arrays = {
        f"{name}|{key}": array
        for name, fsa in zip(names, builder.automata(names), strict=True)
        for key, array in rasr_arrays(fsa).items()
    }
    np.savez(folder / "automata.npz", **arrays)  # type: ignore[arg-type]
    texts = {name: builder.transcript(name) for name in names}
    (folder / "orthographies.json").write_text(json.dumps(texts), encoding="utf-8")
    (folder / "labels.txt").write_text("\n".join(builder.inventory.labels) + "\n", encoding="utf-8")
    return [
        f"--*.stand-in.automata={folder / 'automata.npz'}",
        f"--*.stand-in.orthographies={folder / 'orthographies.json'}",
    ]


def _row(contender: str, instances: int, seconds: Sequence[float]) -> dict[str, Any]:
    waits = sorted(seconds)
    return {
        "contender": contender,
        "executables": instances,
        "automata/s": BATCH * len(waits) / sum(waits),
        "p50 ms": 1e3 * median(waits),
        "p99 ms": 1e3 * waits[int(0.99 * (len(waits) - 1))],
    }


def _through_returnn(
    folder: Path, python: Path, arguments: Sequence[str], instances: int, plan: Sequence[Sequence[str]]
) -> list[float]:
    question = {
        "sprint_opts": {
            "sprintExecPath": str(folder / "nn-trainer.stand-in"),
            "sprintConfigStr": shlex.join(arguments),
            "minPythonControlVersion": 4,
            "numInstances": instances,
            "usePythonSegmentOrder": False,
        },
        "batches": [list(batch) for batch in plan],
    }
    (folder / "question.json").write_text(json.dumps(question), encoding="utf-8")
    program = Path(__file__).with_name("returnn_ask.py")
    answer = folder / "answer.json"
    command = [str(python), str(program), str(folder / "question.json"), str(answer)]
    # RETURNN and its module in the executable say a lot.
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        sys.exit(f"RETURNN's client failed with status {done.returncode}:\n{done.stdout}")
    found: Mapping[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return list(found["seconds"])


def _through_ours(
    folder: Path, arguments: Sequence[str], instances: int, plan: Sequence[Sequence[str]]
) -> list[float]:
    config = {
        "backend": {
            "type": "sprint",
            "executable": str(folder / "nn-trainer.stand-in"),
            "arguments": list(arguments),
            "labels": str(folder / "labels.txt"),
            "instances": instances,
        },
        "cache_bytes": 0,
    }
    seconds = []
    with (
        BridgeProcess(config) as bridge,
        AlignerClient(bridge.target, timeout=60.0, cache_bytes=0) as client,
    ):
        first, *rest = plan
        client.automata(first)
        for batch in rest:
            began = time.monotonic()
            client.automata(batch)
            seconds.append(time.monotonic() - began)
    return seconds


def pipe_rows(python: Path, count: int) -> list[dict[str, Any]]:
    """The table's rows.

    Args:
        python: the interpreter that has RETURNN.
        count: batches of each contender.
    """
    plan = batches(3, count + 1)
    names = sorted({name for batch in plan for name in batch})
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder)
        builder = AutomatonBuilder(
            read_lexicon(folder / "lexicon.txt"),
            HmmTopology(states_per_phone=3),
            read_transcripts(folder / "text"),
        )
        arguments = install(folder, python, builder, names)
        for instances in (1, 2):
            seconds = _through_returnn(folder, python, arguments, instances, plan)
            rows.append(_row("RETURNN's pipe", instances, seconds))
            seconds = _through_ours(folder, arguments, instances, plan)
            rows.append(_row("sprint-bridge, no cache", instances, seconds))
    return rows


def main() -> None:
    """Prints the table."""
    options = parser(__doc__ or "")
    options.add_argument(
        "--returnn",
        type=Path,
        default=default_python(),
        metavar="PYTHON",
        help="interpreter that has RETURNN",
    )
    arguments = options.parse_args()
    if arguments.returnn is None:
        sys.exit("RETURNN isn't installed: tests/returnn_sprint/run makes its environment, or pass --returnn")
    torch.set_num_threads(1)
    rows = pipe_rows(arguments.returnn.absolute(), 8 * arguments.turns)
    show(f"automata through a Sprint executable, batches of {BATCH}", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
