"""Expected loss over n-best hypotheses: minimum Bayes risk training.

With s_k the log score of hypothesis k, L_k its loss,
    w_k = exp(s_k - logsumexp_j s_j),   E = Σ_k w_k L_k,   ∂E/∂s_k = w_k (L_k - E),
so hypotheses better than expected gain. R. Prabhavalkar et al.: Minimum Word Error Rate Training for Attention-based
Sequence-to-Sequence Models, ICASSP 2018; M. Shannon: Optimizing Expected Word Error Rate via Sampling for Speech
Recognition, Interspeech 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from seqtrain.errors import ArgumentError, DeviceError, DtypeError, NonFiniteScoresError, ShapeError
from seqtrain.losses.frames import widened
from seqtrain.losses.reduction import check_reduction, reduce
from seqtrain.scores import FLOATS, host_integers

__all__ = ["ExpectedLoss", "expected_loss"]

_REDUCTIONS = ("none", "sum", "batch")


def expected_loss(
    scores: torch.Tensor,
    losses: torch.Tensor,
    *,
    num_hypotheses: torch.Tensor | None = None,
    normalize_scores: bool = True,
    stop_gradient_of_norm: bool = False,
    divide_by_hypotheses: bool = False,
    subtract_mean_loss: bool = False,
    correction_in_gradient_only: bool = False,
    reduction: str = "none",
) -> torch.Tensor:
    """Loss expected of each utterance's hypotheses.

    By default the expected risk with its exact gradient, which reaches the scores and the losses. The options make it
    what is used in the literature instead.

    Args:
        scores: (B, N) log scores of hypotheses, larger is better, float16 … float64; -inf for a probability of 0.
        losses: (B, N) float, of any sign; anything without a gradient will do, such as edit distances.
        num_hypotheses: (B,) int, how many hypotheses count, 0 … N; None: all of them. The rest may hold anything. An
            utterance without hypotheses has expected loss 0.
        normalize_scores: the weights of an utterance's hypotheses sum to 1; else they are exp(scores).
        stop_gradient_of_norm: their sum counts as a constant: ∂E/∂s_k = w_k L_k.
        divide_by_hypotheses: divide by their number.
        subtract_mean_loss: take off each loss the mean over the utterance's hypotheses, a constant: a baseline. With
            normalized scores whose norm has its gradient, the gradient remains the same.
        correction_in_gradient_only: with `subtract_mean_loss`, the value stays the expected loss; the gradient is that
            with the baseline.
        reduction: "none", "sum" or "batch".

    Returns:
        (B,) expected losses, or their reduction; float32, float64 where scores or losses are.

    Raises:
        NonFiniteScoresError: NaN or +inf in scores, NaN or an infinity in losses, or all scores of an utterance -inf;
        `frame` is the hypothesis. ShapeError, DtypeError, DeviceError, ArgumentError.
    """
    check_reduction(reduction, allowed=_REDUCTIONS)
    counts = _check_arguments(scores, losses, num_hypotheses)
    limit = scores.shape[1]
    outside = (torch.arange(limit) >= counts[:, None]).to(scores.device)
    none = (counts == 0).to(scores.device)[:, None]
    _check_values(scores, losses, outside)
    # An utterance without hypotheses gets weights, of losses that are 0: all at -inf would have no gradient but NaN.
    s = widened(scores).masked_fill(outside, -torch.inf).masked_fill(none, 0.0)
    loss = widened(losses).masked_fill(outside, 0.0)
    divisor = counts.clamp(min=1).to(loss)
    if normalize_scores:
        norm = s.logsumexp(dim=1, keepdim=True)
        s = s - (norm.detach() if stop_gradient_of_norm else norm)
    weights = s.exp()
    centred = loss
    if subtract_mean_loss:
        mean = (loss.sum(dim=1) / divisor)[:, None].detach()
        centred = (loss - mean).masked_fill(outside, 0.0)
    expected = (centred * weights).sum(dim=1)
    if subtract_mean_loss and correction_in_gradient_only:
        expected = expected + ((loss - centred) * weights).sum(dim=1).detach()
    if divide_by_hypotheses:
        expected = expected / divisor
    return reduce(expected, reduction, lengths=counts)


def _check_arguments(
    scores: torch.Tensor, losses: torch.Tensor, num_hypotheses: torch.Tensor | None
) -> torch.Tensor:
    """The counts of hypotheses (B,) int64 on the CPU."""
    for argument, tensor in (("scores", scores), ("losses", losses)):
        if not isinstance(tensor, torch.Tensor) or tensor.dtype not in FLOATS:
            kind = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise DtypeError(f"{argument} must be a tensor of floats, got {kind}", argument=argument)
    if scores.dim() != 2 or scores.shape[1] < 1:
        raise ShapeError(
            f"scores must have shape (B, N), N ≥ 1, got {tuple(scores.shape)}", argument="scores"
        )
    if losses.shape != scores.shape:
        raise ShapeError(
            f"losses must have shape {tuple(scores.shape)}, like the scores, got {tuple(losses.shape)}",
            argument="losses",
        )
    if losses.device != scores.device:
        raise DeviceError(
            f"losses are on {losses.device}, the scores on {scores.device}: move one to the other",
            argument="losses",
        )
    batch, limit = scores.shape
    if num_hypotheses is None:
        return torch.full((batch,), limit, dtype=torch.int64)
    counts = host_integers(num_hypotheses, "num_hypotheses", (batch,)).long()
    bad = (counts < 0) | (counts > limit)
    if bool(bad.any()):
        b = int(bad.nonzero()[0])
        raise ShapeError(
            f"num_hypotheses[{b}] = {int(counts[b])} must lie in 0 … {limit}, the hypotheses of scores",
            argument="num_hypotheses",
        )
    return counts


def _check_values(scores: torch.Tensor, losses: torch.Tensor, outside: torch.Tensor) -> None:
    checks = (
        ("scores", "NaN or +inf", torch.isnan(scores) | torch.isposinf(scores)),
        ("losses", "NaN or an infinity", ~torch.isfinite(losses)),
    )
    for argument, what, found in checks:
        bad = found & ~outside
        if bool(bad.any()):
            b, k = (int(i) for i in bad.nonzero()[0])
            raise NonFiniteScoresError(
                f"{argument} of utterance {b} hold {what} at hypothesis {k}",
                argument=argument, utterance=b, frame=k,
            )  # fmt: skip
    impossible = (torch.isneginf(scores) | outside).all(dim=1) & ~outside.all(dim=1)
    if bool(impossible.any()):
        b = int(impossible.nonzero()[0])
        raise NonFiniteScoresError(
            f"scores of utterance {b} are all -inf: none of its hypotheses has a probability above 0; leave it out "
            f"with num_hypotheses[{b}] = 0",
            argument="scores", utterance=b, frame=0,
        )  # fmt: skip


class ExpectedLoss(torch.nn.Module):
    """`expected_loss` with its options and, if given, what computes the losses of hypotheses.

    Called with (scores (B, N), losses (B, N), *, num_hypotheses=None) or, with an inner loss, with (scores (B, N),
    *inputs, num_hypotheses=None), where `loss(*inputs)` are the losses (B, N) or (B·N,), the N of an utterance one
    after the other: `EditDistance(reduction="none")` takes hypotheses (B·N, U) and as many references.
    """

    def __init__(
        self,
        loss: Callable[..., torch.Tensor] | None = None,
        *,
        normalize_scores: bool = True,
        stop_gradient_of_norm: bool = False,
        divide_by_hypotheses: bool = False,
        subtract_mean_loss: bool = False,
        correction_in_gradient_only: bool = False,
        reduction: str = "batch",
    ) -> None:
        super().__init__()
        check_reduction(reduction, allowed=_REDUCTIONS)
        self.loss = loss
        self.normalize_scores = normalize_scores
        self.stop_gradient_of_norm = stop_gradient_of_norm
        self.divide_by_hypotheses = divide_by_hypotheses
        self.subtract_mean_loss = subtract_mean_loss
        self.correction_in_gradient_only = correction_in_gradient_only
        self.reduction = reduction

    def forward(
        self, scores: torch.Tensor, *inputs: Any, num_hypotheses: torch.Tensor | None = None
    ) -> torch.Tensor:
        return expected_loss(
            scores, self._losses(scores, inputs), num_hypotheses=num_hypotheses,
            normalize_scores=self.normalize_scores, stop_gradient_of_norm=self.stop_gradient_of_norm,
            divide_by_hypotheses=self.divide_by_hypotheses, subtract_mean_loss=self.subtract_mean_loss,
            correction_in_gradient_only=self.correction_in_gradient_only, reduction=self.reduction,
        )  # fmt: skip

    def _losses(self, scores: torch.Tensor, inputs: tuple[Any, ...]) -> torch.Tensor:
        if self.loss is None:
            if len(inputs) != 1:
                raise ArgumentError(
                    f"without an inner loss, the losses (B, N) must be passed and nothing else, got {len(inputs)} "
                    "inputs",
                    argument="losses",
                )
            losses: torch.Tensor = inputs[0]
            return losses
        computed = self.loss(*inputs)
        if computed.shape != scores.shape and tuple(computed.shape) != (scores.numel(),):
            raise ShapeError(
                f"the inner loss must give one loss for each of {tuple(scores.shape)} hypotheses, or "
                f"({scores.numel()},) of them, got {tuple(computed.shape)}: with seqtrain's losses, reduction='none'",
                argument="loss",
            )
        return computed.view(scores.shape)

    def extra_repr(self) -> str:
        return (
            f"normalize_scores={self.normalize_scores}, stop_gradient_of_norm={self.stop_gradient_of_norm}, "
            f"divide_by_hypotheses={self.divide_by_hypotheses}, subtract_mean_loss={self.subtract_mean_loss}, "
            f"correction_in_gradient_only={self.correction_in_gradient_only}, reduction={self.reduction!r}"
        )
