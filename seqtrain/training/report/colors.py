"""Colours of the pictures: a sequential map for spectrograms, opacity for probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["heat", "spectrogram"]

# From dark to light in even steps of lightness, so that it reads in grey as well.
_ANCHORS = np.array(
    [(8, 8, 24), (37, 21, 73), (84, 28, 103), (136, 37, 103), (187, 55, 84), (226, 90, 51), (248, 145, 28),
     (250, 202, 74), (252, 250, 190)],
    dtype=np.float64,
)  # fmt: skip


def spectrogram(log_mel: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Pixels (F, T, 4) of a log-mel spectrogram (T, F), low frequencies at the bottom.

    The range of colours covers all but the quietest 5 % and the loudest 0.5 % of the values.
    """
    values = np.asarray(log_mel, dtype=np.float64).T[::-1]
    low, high = np.quantile(values, [0.05, 0.995]) if values.size else (0.0, 1.0)
    level = np.clip((values - low) / max(high - low, 1e-9), 0.0, 1.0) * (len(_ANCHORS) - 1)
    below = np.minimum(level.astype(np.int64), len(_ANCHORS) - 2)
    part = (level - below)[..., None]
    pixels = np.full((*values.shape, 4), 255, dtype=np.uint8)
    pixels[..., :3] = np.rint(_ANCHORS[below] * (1 - part) + _ANCHORS[below + 1] * part)
    return pixels


def heat(probabilities: NDArray[np.floating], color: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Pixels (H, W, 4) of probabilities (H, W): one colour, whose opacity is the square root of the probability.

    The root lets a probability of a few percent show; being transparent elsewhere, it fits light and dark pages.
    """
    level = np.clip(np.asarray(probabilities, dtype=np.float64), 0.0, 1.0)
    pixels = np.zeros((*level.shape, 4), dtype=np.uint8)
    pixels[..., :3] = color
    pixels[..., 3] = np.rint(255 * np.sqrt(level))
    return pixels
