"""Both stages at the same time, each in a process of its own."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from seqtrain.errors import AlignerItemError, CheckpointError, MissingDependencyError, StageError
from seqtrain.training.checkpoint import load_checkpoint
from seqtrain.training.config import RecipeConfig
from seqtrain.training.messages import describe_error, revive_error
from seqtrain.training.progress import Console
from seqtrain.training.run import RecipeRun
from tests.recipes.tones import CONFIG, prepare

BOTH = dataclasses.replace(CONFIG, threads=2)


def run(
    workdir: Path, config: RecipeConfig, *, said: io.StringIO | None = None, resume: bool = False
) -> RecipeRun:
    console = Console(said or io.StringIO(), every=0.0)
    return RecipeRun(config, workdir, prepare=prepare, console=console, resume=resume)


def test_the_same_bits_as_one_after_the_other(tmp_path: Path, finished: tuple[Path, str]) -> None:
    said = io.StringIO()
    results = run(tmp_path, BOTH, said=said).run(["prepare", "ctc", "hmm"])
    assert {stage: measured["steps"] for stage, measured in results["stages"].items()} == {
        "ctc": 60,
        "hmm": 200,
    }
    assert "ctc: 60/60" in said.getvalue()
    assert "hmm: 200/200" in said.getvalue()
    for stage in ("ctc", "hmm"):
        one, other = (load_checkpoint(f / stage / "checkpoint.safetensors") for f in (finished[0], tmp_path))
        assert one.run == other.run
        for name, value in one.tensors.items():
            assert torch.equal(value, other.tensors[name]), (stage, name)

    # What a stage raises arrives as what it is.
    changed = dataclasses.replace(BOTH, hmm=dataclasses.replace(BOTH.hmm, steps=30))
    with pytest.raises(CheckpointError, match="belongs to a run with other settings or data") as caught:
        run(tmp_path, changed, resume=True).run(["ctc", "hmm"])
    assert caught.value.path == str(tmp_path / "hmm" / "checkpoint.safetensors")


def test_a_process_that_dies_is_named_and_the_other_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seqtrain.training import side_by_side

    endless = dataclasses.replace(
        BOTH,
        ctc=dataclasses.replace(BOTH.ctc, steps=10**6),
        hmm=dataclasses.replace(BOTH.hmm, steps=10**6),
    )
    processes = {}
    take = side_by_side._Worker._take

    def killing(worker: Any, message: dict[str, Any]) -> None:
        processes[worker.stage] = worker._process
        take(worker, message)
        if worker.stage == "hmm" and message.get("update") == "hmm":
            os.kill(worker._process.pid, signal.SIGKILL)

    run(tmp_path, endless).run(["prepare"])
    monkeypatch.setattr(side_by_side._Worker, "_take", killing)
    with pytest.raises(
        StageError, match=r"stage hmm: its process has ended with status -9 .* --resume"
    ) as caught:
        run(tmp_path, endless).run(["ctc", "hmm"])
    assert caught.value.stage == "hmm"
    assert all(process.poll() is not None for process in processes.values())


def test_errors_survive_the_way() -> None:
    for error in (
        AlignerItemError("no word 'x'", segment="u1", status="OOV", words=["x"], target="unix:/s"),
        MissingDependencyError("rich", extra="recipes"),
        StageError("gone", stage="ctc"),
    ):
        revived = revive_error(describe_error(error))
        assert type(revived) is type(error)
        assert str(revived) == str(error)
        assert {k: tuple(v) if isinstance(v, list) else v for k, v in vars(revived).items()} == vars(error)
    unknown = revive_error({"error": "os", "message": "strange", "fields": {}})
    assert str(unknown) == "strange"
