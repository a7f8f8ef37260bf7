"""The training loop: one stage, one model, one criterion, a fixed number of steps."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from seqtrain.data import Augmentation, Batch, Dataset, DurationBatches
from seqtrain.errors import DivergenceError
from seqtrain.training.checkpoint import Position, load_checkpoint, restore_optimizer, save_checkpoint
from seqtrain.training.criterion import Criterion
from seqtrain.training.metrics import MetricsLog
from seqtrain.training.progress import Console
from seqtrain.training.schedule import StepSchedule

__all__ = ["Stage", "train"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one stage of training consists of.

    Args:
        name: names the stage in metrics, checkpoints and progress.
        run: identity of settings and data; a checkpoint with another one is refused.
        model: features (B, T, F), lengths (B,) to logits (B, T', V), lengths (B,).
        optimizer: over the model's parameters; its learning rate is the schedule's peak.
        schedule: learning rate by step, and the number of steps.
        dataset: the training data.
        batches: how it is split.
        criterion: the loss.
        seed: seed of augmentation.
        augmentation: of the features, or None.
        clip: bound on the gradient's norm.
        log_every: steps between lines of metrics.
        checkpoint_every: steps between checkpoints.
        evaluate_every: steps between calls of `evaluate`; 0 for the end only.
        evaluate: measures the model (in evaluation mode) on held-out data; its numbers go into the metrics.
        lookahead: batches that the criterion may prefetch ahead of the step.
    """

    name: str
    run: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: StepSchedule
    dataset: Dataset
    batches: DurationBatches
    criterion: Criterion
    seed: int
    augmentation: Augmentation | None = None
    clip: float = 1.0
    log_every: int = 20
    checkpoint_every: int = 200
    evaluate_every: int = 0
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    lookahead: int = 8


def train(
    stage: Stage, *, checkpoint: str | Path, metrics: MetricsLog, console: Console, resume: bool = False
) -> dict[str, float]:
    """Trains until the schedule's last step; returns the seconds used (`cpu_seconds`, `wall_seconds`).

    The checkpoint holds all the run needs: training that stops anywhere and resumes computes, bit for bit,
    what it would have computed without the stop, on the same machine with the same number of threads.

    Args:
        stage: what to train.
        checkpoint: file that is written every `checkpoint_every` steps and at the end.
        metrics: log for the training's metrics.
        console: shows the progress.
        resume: go on from `checkpoint` where it exists; otherwise start anew.

    Raises:
        CheckpointError: the checkpoint is broken or belongs to other settings.
        DivergenceError: the loss or the gradient isn't finite.
        and whatever the criterion raises (InfeasibleError, AlignerError …).
    """
    position, cpu_before, wall_before = Position(), 0.0, 0.0
    if resume and Path(checkpoint).exists():
        saved = load_checkpoint(checkpoint, run=stage.run)
        stage.model.load_state_dict(saved.group("model"))
        restore_optimizer(stage.optimizer, saved.group("optimizer"))
        stage.criterion.load_state(saved.group("criterion"))
        torch.set_rng_state(saved.tensors["random"])
        position = saved.position
        cpu_before, wall_before = saved.values["cpu_seconds"], saved.values["wall_seconds"]
    metrics.rewind(stage=stage.name, step=position.step)
    peaks = [group["lr"] for group in stage.optimizer.param_groups]
    cpu_start, wall_start = time.process_time(), time.monotonic()

    def used() -> dict[str, float]:
        return {
            "cpu_seconds": cpu_before + time.process_time() - cpu_start,
            "wall_seconds": wall_before + time.monotonic() - wall_start,
        }

    def save() -> None:
        save_checkpoint(
            checkpoint,
            position=position,
            run=stage.run,
            model=stage.model,
            optimizer=stage.optimizer,
            criterion=stage.criterion.state(),
            values=used(),
        )

    def log(**values: float) -> None:
        metrics.append(stage=stage.name, step=position.step, epoch=position.epoch, **values, **used())

    def evaluate() -> dict[str, float]:
        if stage.evaluate is None:
            return {}
        stage.model.eval()
        with torch.inference_mode():
            return stage.evaluate(stage.model)

    averages = _Averages()
    note = ""
    total = stage.schedule.steps
    with console.progress(stage.name, total=total, start=position.step) as progress:
        plan = _upcoming(stage.batches, position)
        window: deque[tuple[list[int], Position]] = deque()
        while position.step < total:
            while len(window) < min(stage.lookahead + 1, total - position.step):
                window.append(next(plan))
            stage.criterion.prefetch([stage.dataset.tags(indices) for indices, _ in window])
            (indices, after) = window.popleft()
            batch = stage.dataset.batch(
                indices,
                augmentation=stage.augmentation,
                seed=stage.seed,
                purpose=(stage.name, position.epoch, position.batch),
            )
            factor = stage.schedule.factor(position.step)
            for group, peak in zip(stage.optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            averages.add(_step(stage, batch, position.step))
            position = after

            step = position.step
            if step % stage.log_every == 0 or step == total:
                means = averages.take()
                note = f"loss {means['loss']:.3f}"
                log(learning_rate=peaks[0] * factor, **means)
            if step == total or (stage.evaluate_every and step % stage.evaluate_every == 0):
                measured = evaluate()
                if measured:
                    log(**measured)
            if step % stage.checkpoint_every == 0 or step == total:
                save()
            progress.update(step, note)
    for group, peak in zip(stage.optimizer.param_groups, peaks, strict=True):
        group["lr"] = peak
    return used()


def _step(stage: Stage, batch: Batch, step: int) -> dict[str, float]:
    """One update; returns the numbers to be averaged for the log."""
    stage.model.train()
    logits, lengths = stage.model(batch.features, batch.lengths)
    value = stage.criterion(batch.tags, logits, lengths)
    stage.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(value.loss)
    norm = float(torch.nn.utils.clip_grad_norm_(stage.model.parameters(), stage.clip))
    loss = float(value.loss.detach())
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DivergenceError(
            f"stage {stage.name}, after {step} steps: the loss is {loss}, the gradient's norm {norm}, in the "
            f"batch with the utterances {', '.join(batch.tags)}; lower the learning rate, or look at these "
            "recordings",
            stage=stage.name,
            step=step,
            utterances=batch.tags,
        )
    stage.optimizer.step()
    return {"loss": loss, "gradient_norm": norm, **value.metrics}


def _upcoming(batches: DurationBatches, position: Position) -> Iterator[tuple[list[int], Position]]:
    """Batches from `position` on, without end, each with the position after it."""
    step, epoch, start = position.step, position.epoch, position.batch
    while True:
        plan = batches.epoch(epoch)
        for index in range(start, len(plan)):
            step += 1
            last = index + 1 == len(plan)
            yield plan[index], Position(step, epoch + 1 if last else epoch, 0 if last else index + 1)
        epoch, start = epoch + 1, 0


class _Averages:
    """Means of what the steps since the last line gave."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def take(self) -> dict[str, float]:
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means
