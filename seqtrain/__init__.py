"""seqtrain: sequence training for speech recognition.

    import seqtrain as st

    loss = st.ctc_loss(logits, targets, lengths, target_lengths, normalize=True)
    value = st.full_sum(scores, lengths, st.fsa.ctc(targets, target_lengths))

`import seqtrain` needs torch and numpy. What needs more is imported by name: `seqtrain.aligner` (the client of an
aligner service), `seqtrain.data`, `seqtrain.training`.
"""

from __future__ import annotations

from seqtrain import errors, fsa, lattice, losses, reference
from seqtrain.functional import (
    Alignment,
    CompactPosteriors,
    best_path,
    compact_posteriors,
    full_sum,
    leaky_full_sum,
    posteriors,
)
from seqtrain.infeasible import InfeasibleCount
from seqtrain.losses import ctc_loss, fast_baum_welch_loss
from seqtrain.scores import Packed

__version__ = "0.1.0"

__all__ = [
    "Alignment",
    "CompactPosteriors",
    "InfeasibleCount",
    "Packed",
    "__version__",
    "best_path",
    "compact_posteriors",
    "ctc_loss",
    "errors",
    "fast_baum_welch_loss",
    "fsa",
    "full_sum",
    "lattice",
    "leaky_full_sum",
    "losses",
    "posteriors",
    "reference",
]
