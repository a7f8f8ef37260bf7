"""Training criteria: one file each, with its function and its thin module."""

from __future__ import annotations

from seqtrain.losses.ctc import CTCLoss, ctc_loss
from seqtrain.losses.fast_baum_welch import AutomatonSource, FastBaumWelchLoss, fast_baum_welch_loss
from seqtrain.losses.prior import PriorEstimator

__all__ = [
    "AutomatonSource",
    "CTCLoss",
    "FastBaumWelchLoss",
    "PriorEstimator",
    "ctc_loss",
    "fast_baum_welch_loss",
]
