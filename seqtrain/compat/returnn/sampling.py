"""RETURNN's `sampling_loss`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from seqtrain.compat.returnn.base import Batch, ReturnnLoss, Settings
from seqtrain.compat.returnn.options import Option
from seqtrain.errors import ArgumentError, ConfigError
from seqtrain.losses.frames import widened
from seqtrain.losses.noise_contrastive import noise_contrastive
from seqtrain.losses.sampled_softmax import sampled_softmax
from seqtrain.losses.samplers import (
    FixedUnigramSampler,
    LearnedUnigramSampler,
    LogUniformSampler,
    Sample,
    Sampler,
    UniformSampler,
)

__all__ = ["Sampling"]

_SAMPLER_ARGUMENTS = ("unigrams", "vocab_file", "distortion", "num_reserved_ids", "num_shards", "shard")


def _fixed_unigram(num_labels: int, arguments: Mapping[str, Any]) -> FixedUnigramSampler:
    for name in arguments:
        if name not in _SAMPLER_ARGUMENTS:
            raise ConfigError(
                f"sampler_args has no {name!r}; valid are: {', '.join(_SAMPLER_ARGUMENTS)}",
                key=f"loss_opts.sampler_args.{name}",
            )
    if arguments.get("num_shards", 1) != 1 or arguments.get("shard", 0) != 0:
        raise ConfigError(
            "sampler_args: one shard alone is supported (num_shards=1, shard=0)",
            key="loss_opts.sampler_args.num_shards",
        )
    if ("unigrams" in arguments) == ("vocab_file" in arguments):
        raise ConfigError(
            "sampler 'fixed_unigram' needs exactly one of sampler_args unigrams and vocab_file",
            key="loss_opts.sampler_args",
        )
    if "unigrams" in arguments:
        counts = [float(count) for count in arguments["unigrams"]]
    else:
        lines = Path(arguments["vocab_file"]).read_text().splitlines()
        counts = [float(line.rsplit(",", 1)[-1]) for line in lines if line.strip()]
    # Reserved labels stand in front and are never drawn.
    counts = [0.0] * int(arguments.get("num_reserved_ids", 0)) + counts
    if len(counts) != num_labels:
        raise ConfigError(
            f"sampler_args have counts for {len(counts)} labels, the layer has {num_labels}",
            key="loss_opts.sampler_args",
        )
    return FixedUnigramSampler(torch.tensor(counts), distortion=float(arguments.get("distortion", 1.0)))


_SAMPLERS: dict[str, Callable[[int, Mapping[str, Any]], Sampler]] = {
    "log_uniform": lambda num_labels, _: LogUniformSampler(num_labels),
    "uniform": lambda num_labels, _: UniformSampler(num_labels),
    "learned_unigram": lambda num_labels, arguments: _OnePerSplit(
        [LearnedUnigramSampler(num_labels) for _ in range(arguments["num_splits"])]
    ),
    "fixed_unigram": _fixed_unigram,
}


class _OnePerSplit(torch.nn.Module):
    """Samplers that take turns: one for each split of a batch."""

    def __init__(self, samplers: list[LearnedUnigramSampler]) -> None:
        super().__init__()
        self.samplers = torch.nn.ModuleList(samplers)
        self._turn = -1

    def _current(self) -> LearnedUnigramSampler:
        sampler = self.samplers[self._turn]
        if not isinstance(sampler, LearnedUnigramSampler):
            raise TypeError(f"a learned unigram became {type(sampler).__name__}")
        return sampler

    def sample(self, num_sampled: int, *, generator: torch.Generator | None = None) -> Sample:
        self._turn = (self._turn + 1) % len(self.samplers)
        return self._current().sample(num_sampled, generator=generator)

    def expected_counts(self, sample: Sample, classes: torch.Tensor) -> torch.Tensor:
        return self._current().expected_counts(sample, classes)

    def observe(self, labels: torch.Tensor) -> None:
        self._current().observe(labels)


class Sampling(ReturnnLoss):
    """Sampled softmax, or noise-contrastive estimation, of a linear layer with transposed weights.

    `sampler` is made at the first batch, when the number of labels is known; it may be set before.
    """

    class_name = "sampling_loss"
    native = "`sampled_softmax`, `noise_contrastive`"
    options = (
        Option("num_sampled", 128, "`num_sampled=`"),
        Option(
            "num_splits",
            1,
            "`num_splits=`",
            "each split has a learned unigram of its own; natively it is one for all",
        ),
        Option(
            "sampler", "log_uniform", "`sampler=`", "uniform, log_uniform, learned_unigram or fixed_unigram"
        ),
        Option("nce_loss", False, "`noise_contrastive`"),
        Option("use_full_softmax", False, "`cross_entropy`"),
        Option(
            "remove_accidental_hits", None, "`remove_accidental_hits=`", "None: True, with nce_loss False"
        ),
        Option(
            "sampler_args",
            None,
            "arguments of the sampler",
            "of fixed_unigram: " + ", ".join(_SAMPLER_ARGUMENTS),
        ),
        Option("nce_log_norm_term", 0.0, "`log_norm=`"),
    )
    notes = (
        "Fails in RETURNN with TensorFlow 2 unless nce_loss or use_full_softmax; works here.",
        "Random draws are torch's, not TensorFlow's: equal in distribution.",
    )

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        if self.option("sampler") not in _SAMPLERS:
            raise ConfigError(
                f"sampler {self.option('sampler')!r} is unknown; there are: {', '.join(sorted(_SAMPLERS))}",
                key="loss_opts.sampler",
            )
        self.sampler: Any = None

    def value(self, batch: Batch) -> torch.Tensor:
        if self.option("use_full_softmax"):
            if not self.uses_logits(batch.layer):
                raise ConfigError(
                    "use_full_softmax needs a layer with the activation softmax",
                    key="loss_opts.use_full_softmax",
                )
            rows = widened(batch.rows(self.scores(batch.layer)))
            return torch.nn.functional.cross_entropy(rows, batch.labels(rows.shape[-1]), reduction="none")
        if batch.layer.weights is None:
            raise ArgumentError(
                "sampling_loss needs a linear layer's input, weight and bias: LayerOutput(…, weights=(…))",
                argument="layer",
            )
        inputs, weight, bias = batch.layer.weights
        num_labels, num_splits = weight.shape[0], int(self.option("num_splits"))
        if self.sampler is None:
            splits = {"num_splits": num_splits} if self.option("sampler") == "learned_unigram" else {}
            given = self.option("sampler_args") or {}
            self.sampler = _SAMPLERS[self.option("sampler")](num_labels, {**given, **splits})
        packed = batch.packed(inputs)
        nce = bool(self.option("nce_loss"))
        remove = self.option("remove_accidental_hits")
        arguments: dict[str, Any] = {
            "sampler": self.sampler,
            "num_sampled": int(self.option("num_sampled")),
            "num_splits": num_splits,
            "remove_accidental_hits": not nce if remove is None else bool(remove),
            "reduction": "per_frame",
        }
        labels = batch.labels(num_labels)
        if nce:
            log_norm = float(self.option("nce_log_norm_term"))
            return noise_contrastive(packed, weight, bias, labels, log_norm=log_norm, **arguments)
        return sampled_softmax(packed, weight, bias, labels, **arguments)
