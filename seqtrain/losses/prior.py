"""Label priors: what a hybrid model's posteriors are divided by.

A network trained on posteriors p(s|x) enters a generative model as p(x|s) ∝ p(s|x) / p(s)^a (H. Bourlard, N. Morgan:
Connectionist Speech Recognition, 1994). Full-sum training from a flat start fails without it: the most frequent label,
silence, takes over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from seqtrain.errors import (
    ArgumentError,
    CheckpointError,
    MissingDependencyError,
    NonFiniteScoresError,
    ShapeError,
)
from seqtrain.scores import host_integers

__all__ = ["PriorEstimator"]

_MODES = ("running", "counted")


class PriorEstimator(torch.nn.Module):
    """Estimates log p(s) as the mean of the network's posteriors over frames.

    "running": an exponential mean that follows the model as it trains; each batch moves it by `momentum` towards the
    batch's mean. "counted": the mean over all frames seen since `reset`, for a model that stands still.

    Before the first update the prior is uniform. Its state is part of the module's `state_dict`.
    """

    def __init__(self, num_labels: int, *, mode: str = "running", momentum: float = 0.05) -> None:
        super().__init__()
        if num_labels < 1:
            raise ArgumentError(f"num_labels must be at least 1, got {num_labels}", argument="num_labels")
        if mode not in _MODES:
            raise ArgumentError(f"mode must be 'running' or 'counted', got {mode!r}", argument="mode")
        if not 0.0 < momentum <= 1.0:
            raise ArgumentError(f"momentum must lie in (0, 1], got {momentum}", argument="momentum")
        self.num_labels = num_labels
        self.mode = mode
        self.momentum = momentum
        self.mean: torch.Tensor
        self.frames: torch.Tensor
        self.register_buffer("mean", torch.full((num_labels,), 1.0 / num_labels, dtype=torch.float64))
        self.register_buffer("frames", torch.zeros((), dtype=torch.int64))

    def _apply(self, fn: Any, *recurse: bool) -> PriorEstimator:
        # A model that changes its dtype takes its buffers along; this mean stays in float64, and changes device alone.
        mean = self.mean
        super()._apply(fn, *recurse)  # type: ignore[no-untyped-call]  # torch has no types here
        self.mean = mean.to(self.mean.device)
        return self

    def reset(self) -> None:
        """Back to the uniform prior and no frames."""
        self.mean.fill_(1.0 / self.num_labels)
        self.frames.zero_()

    @torch.no_grad()
    def update(self, log_probs: torch.Tensor, lengths: torch.Tensor) -> None:
        """Takes in a batch.

        Args:
            log_probs: (B, T, V) normalized log-probabilities.
            lengths: (B,) int frames; what lies past them doesn't count.

        Raises:
            ShapeError: V isn't `num_labels`, or a length doesn't lie in 0 … T.
            NonFiniteScoresError: a frame holds NaN or +inf. The prior stays as it was, so one bad batch can't spoil it.
        """
        if log_probs.dim() != 3 or log_probs.shape[2] != self.num_labels:
            raise ShapeError(
                f"log_probs must have shape (B, T, {self.num_labels}), got {tuple(log_probs.shape)}",
                argument="log_probs",
            )
        batch, limit, _ = log_probs.shape
        lengths = host_integers(lengths, "lengths", (batch,))
        bad = ((lengths < 0) | (lengths > limit)).nonzero()
        if bad.numel():
            b = int(bad[0])
            raise ShapeError(
                f"lengths[{b}] = {int(lengths[b])} must lie in 0 … {limit} (T)", argument="lengths"
            )
        inside = torch.arange(limit) < lengths[:, None]
        frames = int(inside.sum())
        if frames == 0:
            return
        # Half precision would lose the rare labels in the sum.
        probabilities = log_probs[inside.to(log_probs.device)].double().exp()
        total = probabilities.sum(dim=0).to(self.mean.device)
        if not bool(torch.isfinite(total).all()):
            row = int((~torch.isfinite(probabilities).all(dim=1)).nonzero()[0])
            b, t = (int(i) for i in inside.nonzero()[row])
            raise NonFiniteScoresError(
                f"log_probs of utterance {b} hold NaN or +inf at frame {t}; the prior is left as it was",
                argument="log_probs",
                utterance=b,
                frame=t,
            )
        weight = self.momentum if self.mode == "running" else frames / (int(self.frames) + frames)
        self.mean.lerp_(total / frames, weight)
        self.frames += frames

    @property
    def log_prior(self) -> torch.Tensor:
        """(V,) float32 natural-log prior; labels never seen are at the smallest positive float32."""
        tiny = torch.finfo(torch.float32).tiny
        return self.mean.clamp(min=tiny).log().to(torch.float32)

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file (extra `recipes`)."""
        try:
            from safetensors.torch import save_file
        except ModuleNotFoundError as error:
            raise MissingDependencyError("safetensors", extra="recipes") from error
        described = json.dumps({"num_labels": self.num_labels, "mode": self.mode, "momentum": self.momentum})
        save_file({"mean": self.mean, "frames": self.frames}, str(path), metadata={"prior": described})

    @classmethod
    def load(cls, path: str | Path) -> PriorEstimator:
        """Reads what `save` wrote.

        Raises:
            CheckpointError: the file is missing, truncated, or not a prior.
        """
        try:
            from safetensors import SafetensorError, safe_open
        except ModuleNotFoundError as error:
            raise MissingDependencyError("safetensors", extra="recipes") from error
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                options = json.loads(metadata["prior"])
                prior = cls(options["num_labels"], mode=options["mode"], momentum=options["momentum"])
                mean, frames = file.get_tensor("mean"), file.get_tensor("frames")
            if mean.shape != prior.mean.shape or frames.shape != prior.frames.shape:
                raise ValueError(f"mean has shape {tuple(mean.shape)}, frames {tuple(frames.shape)}")
            if not bool((torch.isfinite(mean) & (mean >= 0)).all()):
                raise ValueError("mean holds values that are no probabilities")
            prior.mean.copy_(mean)
            prior.frames.copy_(frames)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} is not a saved prior: {error}", path=str(path)) from error
        return prior
