"""Label priors: running and counted, saved and loaded."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from seqtrain.errors import ArgumentError, CheckpointError, NonFiniteScoresError, ShapeError
from seqtrain.losses import PriorEstimator

LENGTHS = torch.tensor([4, 1, 0])


def log_probs(seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """(3, 4, 5), with NaN past the ends."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64).log_softmax(-1)
    padding = torch.arange(4) >= LENGTHS[:, None]
    return values.masked_fill(padding[..., None], torch.nan).to(dtype)


def frames(*batches: torch.Tensor) -> torch.Tensor:
    """(ΣT, 5) probabilities of all frames inside."""
    inside = torch.arange(4) < LENGTHS[:, None]
    return torch.cat([batch[inside].exp() for batch in batches])


@pytest.mark.parametrize("mode", ["running", "counted"])
def test_before_the_first_update_it_is_uniform(mode: str) -> None:
    prior = PriorEstimator(5, mode=mode)
    torch.testing.assert_close(prior.log_prior, torch.full((5,), 0.2).log())
    assert prior.log_prior.dtype == torch.float32


def test_counted_is_the_mean_over_all_frames() -> None:
    prior = PriorEstimator(5, mode="counted")
    batches = [log_probs(seed) for seed in range(4)]
    for batch in batches:
        prior.update(batch, LENGTHS)
    torch.testing.assert_close(prior.mean, frames(*batches).mean(dim=0), rtol=1e-12, atol=0)
    assert int(prior.frames) == 20
    prior.reset()
    assert (int(prior.frames), prior.mean.tolist()) == (0, [0.2] * 5)


def test_running_moves_by_its_momentum() -> None:
    prior = PriorEstimator(5, momentum=0.25)
    expected = torch.full((5,), 0.2, dtype=torch.float64)
    for seed in range(3):
        prior.update(log_probs(seed), LENGTHS)
        expected = 0.75 * expected + 0.25 * frames(log_probs(seed)).mean(dim=0)
    torch.testing.assert_close(prior.mean, expected, rtol=1e-12, atol=0)
    assert int(prior.frames) == 15


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_run_in_double_precision(dtype: torch.dtype) -> None:
    """A label of probability e^-9 in 10 000 frames is lost in a sum in half precision."""
    scores = torch.full((1, 10_000, 2), -9.0)
    scores[..., 0] = 0.0
    prior = PriorEstimator(2, mode="counted")
    prior.update(scores.to(dtype), torch.tensor([10_000]))
    assert prior.log_prior[1].item() == pytest.approx(-9.0, abs=1e-6)


def test_no_frames_change_nothing() -> None:
    prior = PriorEstimator(5)
    prior.update(log_probs(), torch.zeros(3, dtype=torch.int64))
    prior.update(torch.zeros(0, 4, 5), torch.zeros(0, dtype=torch.int64))
    assert (int(prior.frames), prior.mean.tolist()) == (0, [0.2] * 5)


def test_labels_never_seen_have_a_finite_prior() -> None:
    prior = PriorEstimator(2, mode="counted")
    prior.update(torch.tensor([[[0.0, -torch.inf]]]), torch.tensor([1]))
    assert prior.log_prior[0] == 0.0
    assert prior.log_prior[1].item() == pytest.approx(-87.336544, abs=1e-5)


def test_an_update_is_no_part_of_the_graph() -> None:
    leaf = log_probs().requires_grad_()
    prior = PriorEstimator(5)
    prior.update(leaf, LENGTHS)
    assert not prior.log_prior.requires_grad


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_diverged_batch_is_refused_and_spoils_nothing(value: float) -> None:
    prior = PriorEstimator(5)
    batch = log_probs()
    batch[1, 0, 2] = value
    with pytest.raises(
        NonFiniteScoresError, match=r"utterance 1 hold NaN or \+inf at frame 0; the prior is left"
    ) as e:
        prior.update(batch, LENGTHS)
    assert (e.value.utterance, e.value.frame) == (1, 0)
    assert (int(prior.frames), prior.mean.tolist()) == (0, [0.2] * 5)


@pytest.mark.parametrize(
    ("values", "lengths", "message"),
    [
        (torch.zeros(3, 4, 6), LENGTHS, r"log_probs must have shape \(B, T, 5\), got \(3, 4, 6\)"),
        (torch.zeros(4, 5), LENGTHS, r"got \(4, 5\)"),
        (torch.zeros(3, 4, 5), torch.tensor([4, 1]), r"lengths must have shape \(3\), got \(2,\)"),
        (torch.zeros(3, 4, 5), torch.tensor([4, 5, 0]), r"lengths\[1\] = 5 must lie in 0 … 4"),
        (torch.zeros(3, 4, 5), torch.tensor([4, -1, 0]), r"lengths\[1\] = -1"),
    ],
)
def test_shapes(values: torch.Tensor, lengths: torch.Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        PriorEstimator(5).update(values, lengths)


@pytest.mark.parametrize(
    ("num_labels", "options", "argument"),
    [
        (0, {}, "num_labels"),
        (5, {"mode": "mean"}, "mode"),
        (5, {"momentum": 0.0}, "momentum"),
        (5, {"momentum": 1.5}, "momentum"),
    ],
)
def test_options(num_labels: int, options: dict[str, Any], argument: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        PriorEstimator(num_labels, **options)
    assert caught.value.argument == argument


def trained(mode: str) -> PriorEstimator:
    """A prior that has seen two batches."""
    prior = PriorEstimator(5, mode=mode, momentum=0.3)
    for seed in range(2):
        prior.update(log_probs(seed), LENGTHS)
    return prior


@pytest.mark.parametrize("mode", ["running", "counted"])
def test_saved_and_loaded(mode: str, tmp_path: Path) -> None:
    prior = trained(mode)
    prior.save(tmp_path / "prior.safetensors")
    loaded = PriorEstimator.load(tmp_path / "prior.safetensors")
    assert (loaded.num_labels, loaded.mode, loaded.momentum) == (5, mode, 0.3)
    for other in (loaded, pickle.loads(pickle.dumps(prior))):
        assert torch.equal(other.mean, prior.mean)
        other.update(log_probs(7), LENGTHS)
    prior.update(log_probs(7), LENGTHS)
    assert torch.equal(loaded.mean, prior.mean)
    assert torch.equal(loaded.frames, prior.frames)


def test_state_dict() -> None:
    fresh = PriorEstimator(5, mode="counted")
    fresh.load_state_dict(trained("counted").state_dict())
    assert torch.equal(fresh.mean, trained("counted").mean)
    assert int(fresh.frames) == 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_mean_keeps_its_precision_in_a_model_of_another_dtype(dtype: torch.dtype) -> None:
    model = torch.nn.Sequential(trained("counted"), torch.nn.Linear(2, 2)).to(dtype)
    assert model[1].weight.dtype == dtype
    prior = model[0]
    assert isinstance(prior, PriorEstimator)
    assert torch.equal(prior.mean, trained("counted").mean)


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    with pytest.raises(CheckpointError, match=r"none\.safetensors is not a saved prior") as caught:
        PriorEstimator.load(path)
    assert caught.value.path == str(path)


def test_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "prior.safetensors"
    trained("running").save(path)
    content = path.read_bytes()
    for size in (0, 4, 40, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="is not a saved prior"):
            PriorEstimator.load(path)


OPTIONS = {"num_labels": 5, "mode": "running", "momentum": 0.5}
MEAN, FRAMES = torch.full((5,), 0.2, dtype=torch.float64), torch.tensor(3)


@pytest.mark.parametrize(
    ("tensors", "prior"),
    [
        ({"mean": MEAN, "frames": FRAMES}, None),
        ({"mean": MEAN, "frames": FRAMES}, "{"),
        ({"mean": MEAN, "frames": FRAMES}, "5"),
        ({"mean": MEAN, "frames": FRAMES}, json.dumps({"num_labels": 5})),
        ({"mean": MEAN, "frames": FRAMES}, json.dumps(OPTIONS | {"mode": "mean"})),
        ({"mean": MEAN, "frames": FRAMES}, json.dumps(OPTIONS | {"num_labels": "five"})),
        ({"mean": MEAN, "frames": FRAMES}, json.dumps(OPTIONS | {"num_labels": 6})),
        ({"mean": MEAN[:1], "frames": FRAMES}, json.dumps(OPTIONS)),
        ({"mean": MEAN * torch.nan, "frames": FRAMES}, json.dumps(OPTIONS)),
        ({"mean": MEAN, "frames": FRAMES.expand(2).contiguous()}, json.dumps(OPTIONS)),
        ({"frames": FRAMES}, json.dumps(OPTIONS)),
        ({"mean": MEAN}, json.dumps(OPTIONS)),
    ],
)
def test_a_file_of_something_else(
    tensors: dict[str, torch.Tensor], prior: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "other.safetensors"
    save_file(tensors, str(path), metadata=None if prior is None else {"prior": prior})
    with pytest.raises(CheckpointError, match=r"other\.safetensors is not a saved prior") as caught:
        PriorEstimator.load(path)
    assert caught.value.path == str(path)
