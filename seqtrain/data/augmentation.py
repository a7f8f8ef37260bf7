"""Augmentation of features: time warp and SpecAugment's masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from seqtrain.errors import ArgumentError

__all__ = ["Augmentation", "spec_augment", "time_warp"]


def time_warp(features: torch.Tensor, factor: float) -> torch.Tensor:
    """Stretches features (T, F) in time by linear interpolation to (max(1, round(T · factor)), F).

    Raises:
        ArgumentError: `factor` isn't positive.
    """
    if not factor > 0:
        raise ArgumentError(
            f"the factor of the time warp is {factor}; it must be positive", argument="factor"
        )
    num_frames = max(1, round(features.shape[0] * factor))
    warped = F.interpolate(features.T.unsqueeze(0), size=num_frames, mode="linear", align_corners=False)
    return warped.squeeze(0).T.contiguous()


def spec_augment(
    features: torch.Tensor,
    *,
    generator: torch.Generator,
    frequency_masks: int,
    frequency_width: int,
    frames_per_time_mask: int,
    time_width: int,
) -> torch.Tensor:
    """A copy of features (T, F) in which bands and stretches are zero, which is their mean (Park et al.,
    2019).

    Args:
        features: (T, F).
        generator: source of the random numbers.
        frequency_masks: number of masked bands, each of 0 to `frequency_width` bins.
        frequency_width: most bins in a band.
        frames_per_time_mask: one masked stretch for each that many frames; 0 for none.
        time_width: most frames in a stretch.
    """
    masked = features.clone()
    num_frames, num_bins = features.shape

    def integer(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    for _ in range(frequency_masks):
        width = min(integer(frequency_width + 1), num_bins)
        start = integer(num_bins - width + 1)
        masked[:, start : start + width] = 0.0
    for _ in range(num_frames // frames_per_time_mask if frames_per_time_mask else 0):
        width = min(integer(time_width + 1), num_frames)
        start = integer(num_frames - width + 1)
        masked[start : start + width] = 0.0
    return masked


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Time warp by a factor in [1 - `warp`, 1 + `warp`], then SpecAugment (see `spec_augment`)."""

    warp: float = 0.1
    frequency_masks: int = 2
    frequency_width: int = 6
    frames_per_time_mask: int = 120
    time_width: int = 12

    def __post_init__(self) -> None:
        if not 0 <= self.warp < 1:
            raise ArgumentError(f"warp is {self.warp}; it must lie in [0, 1)", argument="warp")
        for name in ("frequency_masks", "frequency_width", "frames_per_time_mask", "time_width"):
            if getattr(self, name) < 0:
                raise ArgumentError(
                    f"{name} is {getattr(self, name)}; it must not be negative", argument=name
                )

    def __call__(self, features: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """An augmented copy of features (T, F), as (T', F)."""
        factor = 1 + self.warp * (2 * float(torch.rand((), generator=generator)) - 1)
        return spec_augment(
            time_warp(features, factor),
            generator=generator,
            frequency_masks=self.frequency_masks,
            frequency_width=self.frequency_width,
            frames_per_time_mask=self.frames_per_time_mask,
            time_width=self.time_width,
        )
