"""Model, dropout, schedule, optimizer, metrics, progress."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch

from seqtrain.errors import ArgumentError, DataError
from seqtrain.training.dropout import ByteDropout
from seqtrain.training.metrics import MetricsLog
from seqtrain.training.model import ConvAcousticModel
from seqtrain.training.optimizer import adamw
from seqtrain.training.progress import Console
from seqtrain.training.schedule import StepSchedule


def model(**options: object) -> ConvAcousticModel:
    torch.manual_seed(0)
    settings = {"num_features": 8, "num_labels": 5, "width": 16, "dilations": (1, 2), **options}
    return ConvAcousticModel(**settings)  # type: ignore[arg-type]  # a mixture of int and tuple


def test_model_shapes_and_lengths() -> None:
    lengths = torch.tensor([1, 2, 3, 4, 31])
    logits, output_lengths = model()(torch.randn(5, 31, 8), lengths)
    assert logits.shape == (5, 11, 5)
    assert output_lengths.tolist() == [1, 1, 1, 2, 11]
    with pytest.raises(ArgumentError, match="kernel is 4; it must be odd"):
        model(kernel=4)


def test_in_evaluation_padding_and_company_do_not_matter() -> None:
    network = model().eval()
    alone = torch.randn(1, 20, 8)
    padded = torch.randn(3, 50, 8)
    padded[1, :20], padded[1, 20:] = alone[0], 0.0
    logits, lengths = network(padded, torch.tensor([50, 20, 33]))
    expected, _ = network(alone, torch.tensor([20]))
    torch.testing.assert_close(logits[1, : int(lengths[1])], expected[0], atol=1e-5, rtol=1e-5)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    dropout = ByteDropout(0.25)
    torch.manual_seed(1)
    values = torch.ones(64, 32, 1, 100)
    dropped = dropout(values)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert dropped.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    torch.manual_seed(1)
    assert torch.equal(dropout(values), dropped)
    assert dropout.eval()(values) is values


def test_dropout_keeps_the_layout_and_passes_gradients() -> None:
    values = torch.randn(2, 3, 1, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    dropped = ByteDropout(0.5)(values)
    assert dropped.is_contiguous(memory_format=torch.channels_last)
    dropped.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad == 0, dropped == 0)


@pytest.mark.parametrize("probability", [-0.1, 1.0, 0.999])
def test_dropout_refuses_what_is_no_probability(probability: float) -> None:
    with pytest.raises(ArgumentError):
        ByteDropout(probability)


def test_schedule_rises_stays_and_falls() -> None:
    schedule = StepSchedule(steps=1000, warmup=100, plateau=0.3, floor=0.02)
    assert schedule.factor(0) == pytest.approx(0.01)
    assert [schedule.factor(step) for step in (99, 150, 300)] == [1.0, 1.0, 1.0]
    assert schedule.factor(650) == pytest.approx(0.51)
    assert schedule.factor(1000) == schedule.factor(2000) == pytest.approx(0.02)
    falling = [schedule.factor(step) for step in range(300, 1001)]
    assert falling == sorted(falling, reverse=True)
    assert StepSchedule(steps=5, warmup=0).factor(0) == 1.0
    assert StepSchedule(steps=10, plateau=1.0, warmup=0).factor(10) == 1.0


@pytest.mark.parametrize("options", [{"steps": 0}, {"warmup": -1}, {"plateau": 1.5}, {"floor": -0.1}])
def test_schedule_refuses_nonsense(options: dict[str, float]) -> None:
    with pytest.raises(ArgumentError):
        StepSchedule(**{"steps": 10, **options})  # type: ignore[arg-type]  # int and float


def test_weight_decay_spares_biases_and_norms() -> None:
    network = model()
    groups = adamw(network, learning_rate=1e-3, weight_decay=0.1).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert all(p.ndim == 1 for p in groups[1]["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_metrics_rewind_drops_what_comes_again(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl")
    assert list(log) == []
    log.rewind(stage="ctc", step=0)
    for step in (10, 20, 30):
        log.append(stage="ctc", step=step, loss=1.0 / step)
    log.append(stage="hmm", step=30, loss=2.0)
    with log.path.open("a") as file:
        file.write('{"stage": "ctc", "st')
    log.rewind(stage="ctc", step=20)
    assert [(r["stage"], r["step"]) for r in log] == [("ctc", 10), ("ctc", 20), ("hmm", 30)]


def test_broken_metrics_are_named(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl")
    for content in ("nonsense\n", json.dumps({"step": 1}) + "\n"):
        log.path.write_text(content)
        with pytest.raises(DataError, match=r"metrics file .*m\.jsonl: a line"):
            list(log)


def test_progress_without_a_terminal_is_lines() -> None:
    stream = io.StringIO()
    console = Console(stream, every=0.0)
    console.say("hello")
    with console.progress("ctc", total=4, start=2) as progress:
        progress.update(3, "loss 0.500")
        progress.update(4)
    first, second, third = stream.getvalue().splitlines()
    assert first == "hello"
    assert second.startswith("ctc: 3/4 after 0:00, 0:00 left  loss 0.500")
    assert third == "ctc: 4/4 after 0:00"


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    with Console(stream).progress("ctc", total=4) as progress:
        progress.update(4, "loss 0.500")
    assert "ctc" in stream.getvalue()
    assert "4/4" in stream.getvalue()
    assert "loss 0.500" in stream.getvalue()
