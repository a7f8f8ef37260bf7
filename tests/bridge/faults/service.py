"""Services with something wrong, and what must be true of their answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import seqtrain as st
from seqtrain.aligner import AlignerClient, PartialAutomata
from seqtrain.fsa import Fsa
from seqtrain.losses import FastBaumWelchLoss
from sprint_bridge.process import BridgeProcess
from tests.bridge.stand_in import QUICK, install, orthographies
from tests.bridge.test_sprint_backend import golden

SEGMENTS = list(orthographies())
MORE = [f"toy/more/{number}" for number in range(600)]
"""Segments with the automaton of the first one."""
SLACK = 8.0
"""Seconds beyond what was configured, for a busy machine."""
NUM_LABELS = 34
FRAMES = 60


@contextmanager
def sprint_service(
    folder: Path,
    *,
    misbehave: Mapping[str, str] | None = None,
    instances: int = 2,
    item_timeout: float = 5.0,
    **server: Any,
) -> Iterator[BridgeProcess]:
    """A service before executables that stand in for Sprint, and fail over some segments."""
    folder.mkdir(exist_ok=True)
    stand_in = install(folder, misbehave=misbehave, extra=dict.fromkeys(MORE, "one"))
    config = {
        "backend": {
            "type": "sprint",
            "executable": str(stand_in.executable),
            "arguments": list(stand_in.arguments),
            "labels": str(stand_in.labels),
            "silence": "[SILENCE]",
            "environment": dict(stand_in.environment),
            "instances": instances,
            "worker": {**QUICK, "item_timeout": item_timeout},
        },
        "drain_seconds": 1.0,
        **server,
    }
    with BridgeProcess(config) as bridge:
        yield bridge


def automaton(segment: str) -> Fsa:
    """What the service has of a segment when all is well."""
    return golden(SEGMENTS[0] if segment in MORE else segment)


def assert_nothing_lost(
    found: PartialAutomata, tags: Sequence[str], failed: Mapping[str, str] | None = None
) -> None:
    """Each segment has its automaton, those of `failed` the status said there, with a reason."""
    failed = {} if failed is None else failed
    assert [tags[index] for index in found.kept] == [tag for tag in tags if tag not in failed]
    for index, fsa in zip(found.kept, found.automata, strict=True):
        assert fsa.equal(automaton(tags[index])), tags[index]
    assert {error.segment: error.status for error in found.errors} == failed
    assert len(found.kept) + len(found.errors) == len(tags)
    for error in found.errors:
        assert len(str(error).rpartition(f"{error.status}: ")[2]) > 10, f"no reason in {error}"


def step(client: AlignerClient, tags: Sequence[str]) -> tuple[torch.Tensor, tuple[str, ...], float]:
    """Losses (B,) of a step of training, the tags it was told to mask, and how long it took."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(len(tags), FRAMES, NUM_LABELS, generator=generator, requires_grad=True)
    loss = FastBaumWelchLoss(client, reduction="none", on_infeasible="mask")
    began = time.monotonic()
    losses = loss(logits.log_softmax(-1), torch.full((len(tags),), FRAMES), tags)
    losses.sum().backward()
    took = time.monotonic() - began
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    masked = loss.infeasible.last_tags if loss.infeasible.last_tags is not None else ()
    for index, tag in enumerate(tags):
        if tag in masked:
            assert losses[index] == 0.0
            assert not logits.grad[index].any()
        else:
            scores = logits.detach()[index : index + 1].log_softmax(-1)
            wanted = -st.full_sum(scores, torch.tensor([FRAMES]), automaton(tag))
            torch.testing.assert_close(losses[index : index + 1].detach(), wanted)
    return losses.detach(), tuple(masked), took


def children(pid: int, program: str) -> list[int]:
    """Processes that `pid` has started and whose command line names a program."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid and program.encode() in command:
            found.append(int(path.name))
    return found


def peak_memory(pid: int) -> int:
    """Most bytes of memory that a process has had so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) << 10
