"""Logits of each frame's true label and of a few sampled classes, corrected by how likely those were to be sampled.

With h the frame's input, W and b the output layer, Q(c) the count expected of class c in a sample,
    true_n = h_n · W[y_n] + b[y_n] - log Q(y_n),   sampled_nj = h_n · W[c_j] + b[c_j] - log Q(c_j).
What sampled softmax and noise-contrastive estimation share.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from seqtrain.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from seqtrain.losses.frames import Frames, frames_of
from seqtrain.losses.samplers import Sampler
from seqtrain.scores import FLOATS, Scores

__all__ = ["SampledLogits", "check_sampling", "sampled_logits"]


class SampledLogits(NamedTuple):
    """Logits of the N frames that count.

    Attributes:
        true: (N,) of the frame's label, float32 at least.
        sampled: (N, S) of the sampled classes, -inf for a hit that was removed.
        frames: which frames count.
    """

    true: torch.Tensor
    sampled: torch.Tensor
    frames: Frames


def check_sampling(num_sampled: int, num_splits: int) -> None:
    """Raises ArgumentError where there is nothing to sample, or nothing to sample for."""
    for argument, value in (("num_sampled", num_sampled), ("num_splits", num_splits)):
        if value < 1:
            raise ArgumentError(f"{argument} must be at least 1, got {value}", argument=argument)


def sampled_logits(
    inputs: Scores,
    weight: torch.Tensor,
    bias: torch.Tensor,
    targets: torch.Tensor,
    lengths: torch.Tensor | None,
    *,
    sampler: Sampler,
    num_sampled: int,
    num_splits: int,
    remove_accidental_hits: bool,
    generator: torch.Generator | None,
) -> SampledLogits:
    """The logits, differentiable in inputs, weight and bias; the sample and its Q are constants.

    Args, raises: as `seqtrain.losses.sampled_softmax`.
    """
    check_sampling(num_sampled, num_splits)
    rows, frames = frames_of(inputs, lengths, argument="inputs")
    _check_output_layer(rows, weight, bias)
    num_labels = weight.shape[0]
    if getattr(sampler, "num_labels", num_labels) != num_labels:
        raise ArgumentError(
            f"the sampler draws from {sampler.num_labels} classes, but weight has {num_labels}",  # type: ignore[attr-defined]  # asked for above
            argument="sampler",
        )
    labels = frames.select_labels(targets, "targets", num_labels)
    frames.check_finite(rows, "inputs")
    part = labels.shape[0] // num_splits
    sizes = [part] * (num_splits - 1) + [labels.shape[0] - part * (num_splits - 1)]
    parts = torch.split(labels, sizes)
    draws = [_draw(sampler, part, num_sampled, num_labels, generator) for part in parts]
    classes = torch.stack([drawn for drawn, _, _ in draws])
    log_counts = torch.cat([true for _, true, _ in draws])
    _check_counts(log_counts, labels, frames)

    wide = torch.promote_types(torch.promote_types(rows.dtype, weight.dtype), bias.dtype)
    wide = torch.promote_types(wide, torch.float32)
    # One look-up: its gradient is as large as the weight. An embedding's gradient is summed in a fixed order, that of
    # an index would be atomic. Autocast would take the products below to half precision.
    with torch.autocast(rows.device.type, enabled=False):
        rows = rows.to(wide)
        looked_up = torch.cat([labels, classes.flatten()])
        vectors = torch.nn.functional.embedding(looked_up, weight.to(wide))
        offsets = torch.nn.functional.embedding(looked_up, bias.to(wide)[:, None]).squeeze(1)
        _check_vectors(vectors, offsets, looked_up)
        counts = [labels.shape[0], *[num_sampled] * num_splits]
        true_vectors, *sampled_vectors = torch.split(vectors, counts)
        true_offsets, *sampled_offsets = torch.split(offsets, counts)
        true = (rows * true_vectors).sum(dim=1) + true_offsets - log_counts.to(wide)
        sampled = torch.cat(
            [
                part @ vector.T + (offset - log_count.to(wide))
                for part, vector, offset, (_, _, log_count) in zip(
                    torch.split(rows, sizes), sampled_vectors, sampled_offsets, draws, strict=True
                )
            ]
        )
    if remove_accidental_hits:
        hits = torch.cat([part[:, None] == drawn for part, drawn in zip(parts, classes, strict=True)])
        sampled = sampled.masked_fill(hits, -torch.inf)
    return SampledLogits(true, sampled, frames)


def _draw(
    sampler: Sampler,
    labels: torch.Tensor,
    num_sampled: int,
    num_labels: int,
    generator: torch.Generator | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A sample for labels (n,): its classes (S,), log Q of the labels (n,), log Q of the classes (S,)."""
    sample = sampler.sample(num_sampled, generator=generator)
    classes = sample.classes.to(labels.device)
    outside = (classes < 0) | (classes >= num_labels)
    if classes.shape != (num_sampled,) or bool(outside.any()):
        raise ArgumentError(
            f"the sampler must draw {num_sampled} classes 0 … {num_labels - 1}, and drew {tuple(classes.shape)} up to "
            f"{int(classes.max()) if classes.numel() else None}",
            argument="sampler",
        )
    true = sampler.expected_counts(sample, labels).to(labels.device).log()
    sampled = sampler.expected_counts(sample, classes).to(labels.device).log()
    if not bool(torch.isfinite(sampled).all()):
        label = int(classes[~torch.isfinite(sampled)][0])
        raise ArgumentError(
            f"the sampler drew class {label}, for which it expects a count of 0, or none at all",
            argument="sampler",
        )
    observe = getattr(sampler, "observe", None)
    if observe is not None and getattr(sampler, "training", True):
        observe(labels)
    return classes, true, sampled


def _check_output_layer(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> None:
    features = rows.shape[1]
    for argument, tensor in (("weight", weight), ("bias", bias)):
        if not isinstance(tensor, torch.Tensor) or tensor.dtype not in FLOATS:
            kind = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise DtypeError(f"{argument} must be a tensor of floats, got {kind}", argument=argument)
        if tensor.device != rows.device:
            raise DeviceError(
                f"{argument} is on {tensor.device}, the inputs on {rows.device}: move one to the other",
                argument=argument,
            )
    if weight.dim() != 2 or weight.shape[1] != features:
        raise ShapeError(
            f"weight must have shape (V, {features}), one row a label, got {tuple(weight.shape)}",
            argument="weight",
        )
    if tuple(bias.shape) != (weight.shape[0],):
        raise ShapeError(
            f"bias must have shape ({weight.shape[0]},), one value a label, got {tuple(bias.shape)}",
            argument="bias",
        )


def _check_counts(log_counts: torch.Tensor, labels: torch.Tensor, frames: Frames) -> None:
    good = torch.isfinite(log_counts)
    if bool(good.all()):
        return
    row = int((~good).nonzero()[0])
    b, t = frames.locate(row)
    raise ArgumentError(
        f"targets of utterance {b} hold {int(labels[row])} at frame {t}, a label that the sampler can't draw: give "
        "each label that occurs a probability above 0",
        argument="sampler",
    )


def _check_vectors(vectors: torch.Tensor, offsets: torch.Tensor, labels: torch.Tensor) -> None:
    for argument, values in (("weight", vectors), ("bias", offsets[:, None])):
        good = torch.isfinite(values).all(dim=1)
        if not bool(good.all()):
            raise ArgumentError(
                f"{argument} of label {int(labels[~good][0])} holds NaN or an infinity", argument=argument
            )
