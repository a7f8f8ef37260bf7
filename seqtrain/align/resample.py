"""Changing the sampling rate of a whole recording."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import ArgumentError

__all__ = ["resample"]


def resample(samples: NDArray[np.float32], source_rate: int, target_rate: int) -> NDArray[np.float32]:
    """Band-limited resampling by the discrete Fourier transform: the spectrum is cut, or zero-padded.

    The recording is taken as periodic, so what stands at its very end may ring into its start: fine for speech with
    silence around it. The result has round(N * target_rate / source_rate) samples.

    Args:
        samples: (N,) float32.
        source_rate, target_rate: in hertz, positive.

    Raises:
        ArgumentError: a rate isn't positive.
    """
    for name, rate in (("source_rate", source_rate), ("target_rate", target_rate)):
        if rate <= 0:
            raise ArgumentError(f"{name} must be positive, got {rate}", argument=name)
    count = round(len(samples) * target_rate / source_rate)
    if source_rate == target_rate or len(samples) == 0:
        return samples.astype(np.float32)
    spectrum = np.fft.rfft(samples.astype(np.float64))
    bins = count // 2 + 1
    kept = np.zeros(bins, dtype=np.complex128)
    shared = min(bins, len(spectrum))
    kept[:shared] = spectrum[:shared]
    # The bin at half of the smaller rate stands for both signs; where the other side has two bins for it,
    # half each.
    smaller = min(len(samples), count)
    if smaller % 2 == 0 and count != len(samples):
        kept[smaller // 2] *= 0.5 if count > len(samples) else 2.0
    return (np.fft.irfft(kept, count) * (count / len(samples))).astype(np.float32)
