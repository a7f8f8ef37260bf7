"""Cross-entropy of any non-negative outputs, normalized to a distribution over each frame's labels.

loss_t = -log(y_t(label) / Σ_k y_t(k)), for instance of y = exp(x), which is the softmax, of a sigmoid or a softplus
"""

from __future__ import annotations

import torch

from seqtrain.errors import ArgumentError
from seqtrain.losses.frame_values import check_range
from seqtrain.losses.frames import frames_of, widened
from seqtrain.losses.reduction import FRAME_REDUCTIONS, check_reduction
from seqtrain.scores import Scores

__all__ = ["GenericCrossEntropyLoss", "generic_cross_entropy"]


def generic_cross_entropy(
    values: Scores, targets: torch.Tensor, lengths: torch.Tensor | None = None, *, reduction: str = "none"
) -> torch.Tensor:
    """Negative log of the target's share of each frame's values, summed over frames.

    A target whose value is 0 has loss inf, and -inf as its derivative: an activation that can reach 0 (ReLU) suits
    targets that never do.

    Args:
        values: (B, T, V) or `Packed` (ΣT, V), float16 … float64, not negative.
        targets: (B, T) int labels (packed: (ΣT,)).
        lengths: (B,) int frames of each utterance; None: all T, or those of the packed values.
        reduction: one of `seqtrain.losses.reduction.FRAME_REDUCTIONS`.

    Returns:
        (B,) losses ≥ 0, or their reduction; float32, float64 for float64.

    Raises:
        NonFiniteScoresError, LabelError, ShapeError, DtypeError, DeviceError; ArgumentError: a negative value, or a
        frame whose values are all 0.
    """
    check_reduction(reduction, allowed=FRAME_REDUCTIONS)
    given, frames = frames_of(values, lengths, argument="values")
    frames.check_finite(given, "values")
    check_range(frames, given, "values", "they must not be negative", low=0.0)
    rows = widened(given)
    labels = frames.select_labels(targets, "targets", rows.shape[1])
    largest = rows.detach().amax(dim=1, keepdim=True)
    nothing = largest.squeeze(1) == 0.0
    if bool(nothing.any()):
        b, t = frames.locate(int(nothing.nonzero()[0]))
        raise ArgumentError(
            f"values of utterance {b} are all 0 at frame {t}: they have no distribution", argument="values"
        )
    # Values of an exponential may be so large that their sum would overflow.
    log_sums = (rows / largest).sum(dim=1).log() + largest.squeeze(1).log()
    of_labels = rows.gather(1, labels[:, None]).squeeze(1).log()
    return frames.reduce(log_sums - of_labels, reduction)


class GenericCrossEntropyLoss(torch.nn.Module):
    """`generic_cross_entropy` with its reduction kept.

    Called with (values, targets, lengths=None); shapes and errors as in `generic_cross_entropy`. By default the loss is
    the batch's sum divided by the number of utterances.
    """

    def __init__(self, *, reduction: str = "batch") -> None:
        super().__init__()
        check_reduction(reduction, allowed=FRAME_REDUCTIONS)
        self.reduction = reduction

    def forward(
        self, values: Scores, targets: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        return generic_cross_entropy(values, targets, lengths, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
