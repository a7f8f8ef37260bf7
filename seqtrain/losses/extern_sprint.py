"""Loss and error signal from an external aligner (Sprint/RASR), which sees log-posteriors and names of utterances.

loss_b and ∂ loss_b / ∂ logits come from the aligner: MMI, MPE, … on its own lattices. The log-posteriors that it is
sent are log softmax(logits), and its error signal is with respect to the input of that softmax. M. Kitza et al. and
P. Doetsch et al.: RETURNN, ICASSP 2017, section on sequence-discriminative training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seqtrain.errors import Infeasible, InfeasibleError, ShapeError
from seqtrain.infeasible import InfeasibleCount, report
from seqtrain.losses.error_signal import error_signal_loss
from seqtrain.losses.frames import frames_of, widened
from seqtrain.losses.reduction import check_reduction, reduce
from seqtrain.losses.sources import AutomatonSource, ErrorSignalSource, error_signal_source
from seqtrain.scores import Packed, Scores, check_policy

__all__ = ["ExternSprintLoss", "extern_sprint_loss"]

_REDUCTIONS = ("none", "sum", "batch", "frames")


def extern_sprint_loss(
    logits: Scores,
    lengths: torch.Tensor,
    tags: Sequence[str],
    source: ErrorSignalSource,
    *,
    reduction: str = "none",
    on_infeasible: str = "raise",
    infeasible: InfeasibleCount | None = None,
) -> torch.Tensor:
    """The aligner's losses, with its error signals as their gradient.

    Args:
        logits: (B, T, V) or `Packed`, input of the softmax.
        lengths: (B,) int frames.
        tags: names of the B utterances, as the aligner knows them.
        source: is asked once.
        reduction: "none", "sum", "batch" or "frames".
        on_infeasible: what to do with an utterance that the aligner skipped (loss +inf): "raise" InfeasibleError,
            "mask" (loss 0, gradient 0), or "inf" (loss inf, gradient 0).
        infeasible: counts the utterances that were skipped.

    Returns:
        (B,) losses, or their reduction.

    Raises:
        InfeasibleError, ShapeError, NonFiniteScoresError, and what the source raises. DerivativeError: when the
        gradient is differentiated again.
    """
    check_reduction(reduction, allowed=_REDUCTIONS)
    check_policy(on_infeasible)
    rows, frames = frames_of(logits, lengths, argument="logits")
    if isinstance(tags, str) or len(tags) != frames.batch:
        raise ShapeError(f"tags must name {frames.batch} utterances, got {tags!r:.200}", argument="tags")
    frames.check_finite(rows, "logits", minus_inf=True)
    log_posteriors = rows.new_zeros(frames.batch, frames.limit, rows.shape[1], dtype=torch.float32)
    inside = frames.inside()
    log_posteriors[inside] = widened(rows.detach()).log_softmax(-1).float()
    answer = source.error_signals(tags, log_posteriors, frames.lengths)
    losses = torch.as_tensor(answer.losses)
    signals = torch.as_tensor(answer.signals)
    if losses.shape != (frames.batch,) or signals.shape != log_posteriors.shape:
        raise ShapeError(
            f"the aligner must answer with losses ({frames.batch},) and signals {tuple(log_posteriors.shape)}, got "
            f"{tuple(losses.shape)} and {tuple(signals.shape)}",
            argument="source",
        )
    skipped = losses == torch.inf
    if bool(skipped.any()) and on_infeasible == "raise":
        raise InfeasibleError(
            [
                Infeasible(b, tags[b], int(frames.lengths[b]), None, _reason(answer.reasons, b))
                for b in skipped.nonzero().flatten().tolist()
            ]
        )
    report(-skipped.long().cpu(), tags, infeasible, on_infeasible)
    signals = signals.to(rows.device).masked_fill(skipped.to(rows.device)[:, None, None], 0.0)
    if on_infeasible == "mask":
        losses = losses.masked_fill(skipped, 0.0)
    signal: Scores = Packed(signals[inside], logits.offsets) if isinstance(logits, Packed) else signals
    values = error_signal_loss(logits, losses, lengths, error_signal=signal)
    return reduce(values, reduction, lengths=frames.lengths)


def _reason(reasons: Sequence[str | None], b: int) -> str:
    known = reasons[b] if b < len(reasons) else None
    return "the aligner skipped it" + (f" ({known})" if known is not None else "")


class ExternSprintLoss(torch.nn.Module):
    """`extern_sprint_loss` with its options and a source; called with (logits, lengths, tags).

    Args:
        source: an aligner's client, the address of its service, or a source of automata such as a builder: then the
            full-sum criterion over them.
        on_infeasible: as above; `infeasible` counts what the aligner skipped.
    """

    def __init__(
        self,
        source: ErrorSignalSource | AutomatonSource | str,
        *,
        reduction: str = "batch",
        on_infeasible: str = "raise",
    ) -> None:
        super().__init__()
        check_reduction(reduction, allowed=_REDUCTIONS)
        check_policy(on_infeasible)
        self.source = error_signal_source(source)
        self.reduction = reduction
        self.on_infeasible = on_infeasible
        self.infeasible = InfeasibleCount()

    def forward(self, logits: Scores, lengths: torch.Tensor, tags: Sequence[str]) -> torch.Tensor:
        return extern_sprint_loss(
            logits, lengths, tags, self.source, reduction=self.reduction, on_infeasible=self.on_infeasible,
            infeasible=self.infeasible,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, on_infeasible={self.on_infeasible!r}"
