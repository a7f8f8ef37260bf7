"""Training that stops and goes on computes what it would have computed without the stop, bit for bit."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from seqtrain.data import Augmentation, Dataset, DurationBatches, Utterance, generator
from seqtrain.errors import CheckpointError, DivergenceError
from seqtrain.training.checkpoint import Position, load_checkpoint, save_checkpoint
from seqtrain.training.criteria import CtcCriterion
from seqtrain.training.criterion import CriterionValue
from seqtrain.training.loop import Stage, train
from seqtrain.training.metrics import MetricsLog
from seqtrain.training.model import ConvAcousticModel
from seqtrain.training.optimizer import adamw
from seqtrain.training.progress import Console
from seqtrain.training.schedule import StepSchedule

STEPS = 24


class InterruptedTrainingError(Exception):
    """Stands for whatever ends a run in its middle."""


class StopsAt(CtcCriterion):
    """CTC that is interrupted at its `calls`-th batch, and remembers what it was told of the future."""

    calls: int | None = None

    def __call__(self, tags: Sequence[str], logits: torch.Tensor, lengths: torch.Tensor) -> CriterionValue:
        self.planned.append(self.next == list(tags))
        if self.calls is not None:
            self.calls -= 1
            if self.calls < 0:
                raise InterruptedTrainingError
        return super().__call__(tags, logits, lengths)

    def prefetch(self, batches: Sequence[Sequence[str]]) -> None:
        self.next = list(batches[0])

    def __init__(self, targets: dict[str, torch.Tensor]) -> None:
        super().__init__(targets, blank=0)
        self.next: list[str] = []
        self.planned: list[bool] = []


def stage(name: str = "ctc", **changes: object) -> Stage:
    random = generator(7)
    lengths = torch.randint(40, 90, (12,), generator=random).tolist()
    utterances = [Utterance(f"u{i}", Path("none.wav"), "", 1.0) for i in range(12)]
    dataset = Dataset(utterances, [torch.randn(length, 8, generator=random) for length in lengths])
    targets = {u.id: torch.randint(1, 6, (4,), generator=random) for u in utterances}
    torch.manual_seed(3)
    model = ConvAcousticModel(num_features=8, num_labels=6, width=16, dilations=(1, 2), dropout=0.2)
    return dataclasses.replace(
        Stage(
            name=name,
            run="run-1",
            model=model,
            optimizer=adamw(model, learning_rate=5e-3, weight_decay=1e-2),
            schedule=StepSchedule(steps=STEPS, warmup=4),
            dataset=dataset,
            batches=DurationBatches(lengths, max_frames=250, seed=1),
            criterion=StopsAt(targets),
            seed=1,
            augmentation=Augmentation(),
            log_every=1,
            checkpoint_every=5,
        ),
        **changes,
    )


def run(what: Stage, folder: Path, *, resume: bool = False) -> dict[str, float]:
    return train(
        what,
        checkpoint=folder / "checkpoint.safetensors",
        metrics=MetricsLog(folder / "metrics.jsonl"),
        console=Console(io.StringIO()),
        resume=resume,
    )


def losses(folder: Path) -> list[tuple[int, float, float]]:
    return [(r["step"], r["loss"], r["learning_rate"]) for r in MetricsLog(folder / "metrics.jsonl")]


def test_training_reduces_the_loss_and_reports(tmp_path: Path) -> None:
    used = run(stage(), tmp_path)
    curve = losses(tmp_path)
    assert [step for step, _, _ in curve] == list(range(1, STEPS + 1))
    assert curve[-1][1] < 0.7 * curve[0][1]
    assert used["wall_seconds"] > 0
    assert load_checkpoint(tmp_path / "checkpoint.safetensors").position.step == STEPS


@pytest.mark.parametrize("stop", [5, 7, 13])
def test_resuming_is_bit_exact(tmp_path: Path, stop: int) -> None:
    run(stage(), tmp_path / "whole")

    first = stage()
    assert isinstance(first.criterion, StopsAt)
    first.criterion.calls = stop
    with pytest.raises(InterruptedTrainingError):
        run(first, tmp_path / "parts")
    torch.manual_seed(99)
    run(stage(), tmp_path / "parts", resume=True)

    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    whole, parts = (
        load_checkpoint(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts")
    )
    assert whole.tensors.keys() == parts.tensors.keys()
    for name, value in whole.tensors.items():
        assert torch.equal(value, parts.tensors[name]), name


def test_without_resume_a_run_begins_anew(tmp_path: Path) -> None:
    run(stage(), tmp_path)
    before = losses(tmp_path)
    run(stage(), tmp_path)
    assert losses(tmp_path) == before


def test_a_finished_run_resumes_to_nothing(tmp_path: Path) -> None:
    run(stage(), tmp_path)
    before = losses(tmp_path)
    again = stage()
    run(again, tmp_path, resume=True)
    assert losses(tmp_path) == before
    assert isinstance(again.criterion, StopsAt)
    assert again.criterion.planned == []


def test_seeds_decide(tmp_path: Path) -> None:
    run(stage(), tmp_path / "one")
    run(stage(seed=2), tmp_path / "two")
    assert losses(tmp_path / "one") != losses(tmp_path / "two")


def test_the_criterion_knows_what_comes_next(tmp_path: Path) -> None:
    what = stage()
    run(what, tmp_path)
    assert isinstance(what.criterion, StopsAt)
    assert what.criterion.planned == [True] * STEPS


def test_evaluation_is_logged_and_changes_nothing(tmp_path: Path) -> None:
    modes = []

    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        modes.append(model.training)
        return {"per_dev": 50.0}

    run(stage(), tmp_path / "without")
    run(stage(evaluate=evaluate, evaluate_every=10), tmp_path / "with")
    records = list(MetricsLog(tmp_path / "with" / "metrics.jsonl"))
    assert [r["step"] for r in records if "per_dev" in r] == [10, 20, STEPS]
    assert modes == [False] * 3
    trained = [(r["step"], r["loss"], r["learning_rate"]) for r in records if "loss" in r]
    assert trained == losses(tmp_path / "without")


def test_other_settings_are_refused(tmp_path: Path) -> None:
    run(stage(), tmp_path)
    with pytest.raises(
        CheckpointError, match=r"belongs to a run with other settings or data .*run-1.*run-2"
    ) as caught:
        run(stage(run="run-2"), tmp_path, resume=True)
    assert caught.value.path == str(tmp_path / "checkpoint.safetensors")


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_a_broken_checkpoint_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    run(stage(), tmp_path)
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_bytes(b"not a checkpoint, but long enough for a header")
    else:
        from safetensors.torch import save

        path.write_bytes(save({"x": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors (is broken|isn't a checkpoint)"):
        run(stage(), tmp_path, resume=True)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no\.safetensors doesn't exist"):
        load_checkpoint(tmp_path / "no.safetensors")


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.safetensors"
    model = torch.nn.Linear(2, 2)
    save_checkpoint(path, position=Position(1), run="r", model=model)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("seqtrain.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, position=Position(2), run="r", model=model)
    assert load_checkpoint(path).position == Position(1)
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_divergence_is_an_error(tmp_path: Path) -> None:
    class Explodes(CtcCriterion):
        def __call__(
            self, tags: Sequence[str], logits: torch.Tensor, lengths: torch.Tensor
        ) -> CriterionValue:
            return CriterionValue(logits.sum() * float("inf"))

    what = stage(criterion=Explodes({}, blank=0))
    with pytest.raises(
        DivergenceError, match=r"stage ctc, after 0 steps: the loss is .* lower the learning rate"
    ) as e:
        run(what, tmp_path)
    assert (e.value.stage, e.value.step) == ("ctc", 0)
    assert e.value.utterances
