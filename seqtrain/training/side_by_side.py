"""Training stages that don't need each other, each in a process and on threads of its own.

On two cores, two networks that train side by side take little longer than one: a step's operations are too small to
be worth sharing between two threads.
"""

from __future__ import annotations

import dataclasses
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from seqtrain.errors import StageError
from seqtrain.training.config import RecipeConfig
from seqtrain.training.messages import revive_error
from seqtrain.training.progress import Console, Progress

__all__ = ["train_side_by_side"]

_STOP_SECONDS = 10.0


def train_side_by_side(
    stages: Sequence[str], config: RecipeConfig, workdir: Path, *, console: Console, resume: bool
) -> dict[str, dict[str, Any]]:
    """Trains stages at the same time, with an equal share of the configured threads each; returns what each measured.

    When one fails, the others are stopped; what they have trained is in their checkpoints.

    Raises:
        StageError: a stage's process died.
        and what a stage itself raises (AlignerUnavailableError, CheckpointError …).
    """
    share = dataclasses.replace(config, threads=max(1, config.threads // len(stages)))
    with ExitStack() as stack:
        workers = [
            stack.enter_context(_Worker(stage, share, workdir, console=console, resume=resume))
            for stage in stages
        ]
        with selectors.DefaultSelector() as selector:
            for worker in workers:
                selector.register(worker.stdout, selectors.EVENT_READ, worker)
            while selector.get_map():
                for key, _ in selector.select():
                    if not key.data.read():
                        selector.unregister(key.fileobj)
        return {worker.stage: worker.result() for worker in workers}


class _Worker:
    """The process of one stage, and what it has said."""

    def __init__(
        self, stage: str, config: RecipeConfig, workdir: Path, *, console: Console, resume: bool
    ) -> None:
        self.stage = stage
        self._console = console
        self._received = b""
        self._result: dict[str, Any] | None = None
        self._contexts = ExitStack()
        self._progress: dict[str, tuple[Progress, ExitStack]] = {}
        # A raw pipe: reads must return what is there, for the selector knows nothing of a buffer.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "seqtrain.training.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise StageError(f"stage {stage}: its process has no pipes", stage=stage)
        self.stdout = self._process.stdout
        job = {
            "stage": stage,
            "config": dataclasses.asdict(config),
            "workdir": str(workdir),
            "resume": resume,
        }
        # One that has died already can't read its job; reading its end says so.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(job).encode())
            self._process.stdin.close()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.stdout.close()
        self._contexts.close()

    def read(self) -> bool:
        """Takes in what the process has said; whether more may come.

        Raises:
            StageError, or what the stage raised.
        """
        chunk = os.read(self.stdout.fileno(), 65536)
        *lines, self._received = (self._received + chunk).split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        if chunk:
            return True
        status = self._process.wait()
        if self._result is None:
            raise StageError(
                f"stage {self.stage}: its process has ended with status {status} (see above for what it said); "
                "run again with --resume to go on from its checkpoint",
                stage=self.stage,
            )
        return False

    def result(self) -> dict[str, Any]:
        """What the stage has measured."""
        return self._result if self._result is not None else {}

    def _take(self, message: dict[str, Any]) -> None:
        if "say" in message:
            self._console.say(message["say"])
        elif "open" in message:
            context = self._contexts.enter_context(ExitStack())
            progress = context.enter_context(
                self._console.progress(message["open"], total=message["total"], start=message["start"])
            )
            self._progress[message["open"]] = progress, context
        elif "update" in message:
            self._progress[message["update"]][0].update(message["done"], message["note"])
        elif "close" in message:
            self._progress.pop(message["close"])[1].close()
        elif "result" in message:
            self._result = message["result"]
        else:
            raise revive_error(message)
