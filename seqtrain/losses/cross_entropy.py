"""Cross-entropy of each frame's label distribution, with smoothing, focus and a bound.

loss_t = -Σ_k q_t(k) · log p_t(k), where p_t = softmax(logits_t) and q_t is the target's distribution: 1 at the label,
or
    label smoothing s:  1 - s at the label, s / (V - 1) elsewhere
    Gaussian of σ:      ∝ exp(-(k - label)² / 2σ²)
The Kullback-Leibler divergence is that minus the entropy of q_t. The focal loss multiplies it by (1 - p_t(label))^γ.

C. Szegedy et al.: Rethinking the Inception Architecture for Computer Vision, CVPR 2016 (label smoothing).
T.-Y. Lin et al.: Focal Loss for Dense Object Detection, ICCV 2017 (here without α).
"""

from __future__ import annotations

import math

import torch

from seqtrain.errors import ArgumentError, NonFiniteScoresError
from seqtrain.losses.frame_values import check_range, labels_or_values
from seqtrain.losses.frames import Frames, frames_of, widened
from seqtrain.losses.reduction import FRAME_REDUCTIONS, check_reduction
from seqtrain.scores import Scores

__all__ = ["CrossEntropyLoss", "cross_entropy"]

_INPUTS = ("logits", "log_probs", "probs")

# How far above 1 rounding may bring a probability.
_SLACK = 1e-3


def cross_entropy(
    scores: Scores,
    targets: torch.Tensor,
    lengths: torch.Tensor | None = None,
    *,
    input: str = "logits",
    label_smoothing: float = 0.0,
    gaussian_stddev: float | None = None,
    subtract_entropy: bool = False,
    focal_factor: float = 0.0,
    upper_bound: float | None = None,
    min_prob: float = 0.0,
    reduction: str = "none",
) -> torch.Tensor:
    """Cross-entropy of each frame, summed over frames.

    A label of probability zero (-inf as logit or log-probability, 0 as probability) is legal. It makes a frame's loss
    inf where the target gives it any weight, and adds nothing where not.

    Args:
        scores: (B, T, V) or `Packed` (ΣT, V), float16 … float64; what they are, `input` says.
        targets: (B, T) int labels, or (B, T, V) float weights t of the labels (packed: (ΣT,), (ΣT, V)), for which the
            loss is -Σ_k t_k log p_k. Weights needn't sum to 1; the gradient reaches them too.
        lengths: (B,) int frames of each utterance; None: all T, or those of the packed scores.
        input: "logits" (log-softmax is applied), "log_probs" or "probs" (taken as they are).
        label_smoothing: s in [0, 1), the weight that labels other than the target share.
        gaussian_stddev: σ > 0 of a Gaussian around the target, normalized over the V labels. For labels with an order,
            such as quantized values. Excludes label smoothing.
        subtract_entropy: the divergence of p from the target's distribution instead of the cross-entropy.
        focal_factor: γ ≥ 0; the loss is multiplied by (1 - p(target))^γ, through which the gradient flows too. An
            infinite loss stays infinite.
        upper_bound: the loss of a frame is at most this; the gradient is 0 above.
        min_prob: for "probs": every p counts as max(p, min_prob), with gradient 0 where it is less.
        reduction: one of `seqtrain.losses.reduction.FRAME_REDUCTIONS`.

    Returns:
        (B,) losses ≥ 0 of distributions, or their reduction; float32, float64 for float64.

    Raises:
        NonFiniteScoresError (NaN, +inf, a frame whose logits are all -inf), LabelError, ShapeError, DtypeError,
        DeviceError, ArgumentError (negative probabilities; with a focal factor those above 1; options out of range, or
        with dense targets those that only labels have).
    """
    check_reduction(reduction, allowed=FRAME_REDUCTIONS)
    _check_options(input, label_smoothing, gaussian_stddev, focal_factor, upper_bound, min_prob)
    given, frames = frames_of(scores, lengths)
    _check_scores(frames, given, input)
    rows = widened(given)
    wanted = labels_or_values(frames, targets, rows)
    smoothed = label_smoothing > 0.0 or gaussian_stddev is not None
    if wanted.dim() == 2:
        _check_dense(label_smoothing, gaussian_stddev, focal_factor)
        if subtract_entropy:
            check_range(frames, wanted, "targets", "subtract_entropy needs weights of 0 or more", low=0.0)
    elif label_smoothing > 0.0 and rows.shape[1] == 1:
        raise ArgumentError(
            f"label_smoothing = {label_smoothing} needs another label to give weight to, but the scores have one",
            argument="label_smoothing",
        )
    if focal_factor > 0.0 and input != "logits":
        highest = _SLACK if input == "log_probs" else 1.0 + _SLACK
        of_target = rows.detach().gather(1, wanted[:, None])
        check_range(
            frames, of_target, "scores", "focal_factor needs probabilities of at most 1", high=highest
        )

    def losses(rows: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        if wanted.dim() == 1 and not smoothed:
            values = _of_labels(rows, wanted, input, min_prob)
        else:
            weights = wanted
            if wanted.dim() == 1:
                weights = _smooth(wanted, rows, label_smoothing, gaussian_stddev)
            values = _of_weights(rows, weights, input, min_prob)
            if subtract_entropy:
                values = values - torch.special.entr(weights).sum(dim=1)
        if focal_factor == 0.0:
            return values
        if input == "probs":
            rest = 1.0 - rows.gather(1, wanted[:, None]).squeeze(1).clamp(min=min_prob)
        else:
            rest = -torch.expm1(-_of_labels(rows, wanted, input, min_prob) if smoothed else -values)
        return _focus(values, rest, focal_factor)

    if upper_bound is None:
        return frames.reduce(losses(rows, wanted), reduction)
    # Frames above the bound are left out of what is differentiated: an infinite derivative times 0 would be NaN.
    with torch.no_grad():
        below = losses(rows, wanted) <= upper_bound
    bounded = rows.new_full((rows.shape[0],), upper_bound)
    return frames.reduce(bounded.masked_scatter(below, losses(rows[below], wanted[below])), reduction)


class CrossEntropyLoss(torch.nn.Module):
    """`cross_entropy` with its options kept.

    Called with (scores, targets, lengths=None); shapes and errors as in `cross_entropy`. By default the scores are
    logits and the loss is the batch's sum divided by the number of utterances.
    """

    def __init__(
        self,
        *,
        input: str = "logits",
        label_smoothing: float = 0.0,
        gaussian_stddev: float | None = None,
        subtract_entropy: bool = False,
        focal_factor: float = 0.0,
        upper_bound: float | None = None,
        min_prob: float = 0.0,
        reduction: str = "batch",
    ) -> None:
        super().__init__()
        check_reduction(reduction, allowed=FRAME_REDUCTIONS)
        _check_options(input, label_smoothing, gaussian_stddev, focal_factor, upper_bound, min_prob)
        self.input = input
        self.label_smoothing = label_smoothing
        self.gaussian_stddev = gaussian_stddev
        self.subtract_entropy = subtract_entropy
        self.focal_factor = focal_factor
        self.upper_bound = upper_bound
        self.min_prob = min_prob
        self.reduction = reduction

    def forward(
        self, scores: Scores, targets: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        return cross_entropy(
            scores, targets, lengths, input=self.input, label_smoothing=self.label_smoothing,
            gaussian_stddev=self.gaussian_stddev, subtract_entropy=self.subtract_entropy,
            focal_factor=self.focal_factor, upper_bound=self.upper_bound, min_prob=self.min_prob,
            reduction=self.reduction,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"input={self.input!r}, label_smoothing={self.label_smoothing}, gaussian_stddev={self.gaussian_stddev}, "
            f"subtract_entropy={self.subtract_entropy}, focal_factor={self.focal_factor}, "
            f"upper_bound={self.upper_bound}, min_prob={self.min_prob}, reduction={self.reduction!r}"
        )


def _check_options(
    input: str,
    label_smoothing: float,
    gaussian_stddev: float | None,
    focal_factor: float,
    upper_bound: float | None,
    min_prob: float,
) -> None:
    if input not in _INPUTS:
        raise ArgumentError(
            f"input must be one of {', '.join(map(repr, _INPUTS))}, got {input!r}", argument="input"
        )
    if not 0.0 <= label_smoothing < 1.0:
        raise ArgumentError(
            f"label_smoothing must lie in [0, 1), got {label_smoothing}", argument="label_smoothing"
        )
    if gaussian_stddev is not None and not 0.0 < gaussian_stddev < math.inf:
        raise ArgumentError(
            f"gaussian_stddev must be positive and finite, got {gaussian_stddev}", argument="gaussian_stddev"
        )
    if gaussian_stddev is not None and label_smoothing > 0.0:
        raise ArgumentError(
            f"label_smoothing = {label_smoothing} and gaussian_stddev = {gaussian_stddev} are two distributions of the "
            "target: pass one",
            argument="gaussian_stddev",
        )
    if not 0.0 <= focal_factor < math.inf:
        raise ArgumentError(
            f"focal_factor must be finite and not negative, got {focal_factor}", argument="focal_factor"
        )
    if upper_bound is not None and not upper_bound > 0.0:
        raise ArgumentError(f"upper_bound must be positive, got {upper_bound}", argument="upper_bound")
    if not 0.0 <= min_prob < 1.0:
        raise ArgumentError(f"min_prob must lie in [0, 1), got {min_prob}", argument="min_prob")
    if min_prob > 0.0 and input != "probs":
        raise ArgumentError(
            f"min_prob = {min_prob} is a bound of probabilities, but input={input!r}", argument="min_prob"
        )


def _check_scores(frames: Frames, rows: torch.Tensor, input: str) -> None:
    if input == "probs":
        frames.check_finite(rows, "scores")
        check_range(frames, rows, "scores", "probabilities must not be negative", low=0.0)
        return
    frames.check_finite(rows, "scores", minus_inf=True)
    if input == "logits":
        nothing = torch.isneginf(rows.amax(dim=1))
        if bool(nothing.any()):
            b, t = frames.locate(int(nothing.nonzero()[0]))
            raise NonFiniteScoresError(
                f"scores of utterance {b} hold -inf for every label at frame {t}: logits of no distribution",
                argument="scores", utterance=b, frame=t,
            )  # fmt: skip


def _check_dense(label_smoothing: float, gaussian_stddev: float | None, focal_factor: float) -> None:
    """Raises ArgumentError for an option that needs a label, of targets that are weights of all labels."""
    options = {
        "label_smoothing": label_smoothing, "gaussian_stddev": gaussian_stddev, "focal_factor": focal_factor
    }  # fmt: skip
    for argument, value in options.items():
        if value:
            raise ArgumentError(
                f"{argument} = {value} needs integer targets (B, T), one label a frame, and these are dense",
                argument=argument,
            )


def _of_labels(rows: torch.Tensor, labels: torch.Tensor, input: str, min_prob: float) -> torch.Tensor:
    """(N,): -log p(label)."""
    if input == "logits":
        return torch.nn.functional.cross_entropy(rows, labels, reduction="none")
    if input == "log_probs":
        return torch.nn.functional.nll_loss(rows, labels, reduction="none")
    return -rows.gather(1, labels[:, None]).squeeze(1).clamp(min=min_prob).log()


def _of_weights(rows: torch.Tensor, weights: torch.Tensor, input: str, min_prob: float) -> torch.Tensor:
    """(N,): -Σ_k weight_k · log p_k, with 0 · log 0 = 0, also in derivatives."""
    if input == "probs":
        probs = rows.clamp(min=min_prob)
        log_probs = torch.where((weights == 0.0) & (probs == 0.0), 1.0, probs).log()
    else:
        log_probs = rows.log_softmax(dim=1) if input == "logits" else rows
        log_probs = torch.where((weights == 0.0) & torch.isneginf(log_probs), 0.0, log_probs)
    return -(weights * log_probs).sum(dim=1)


def _smooth(
    labels: torch.Tensor, rows: torch.Tensor, label_smoothing: float, gaussian_stddev: float | None
) -> torch.Tensor:
    """(N, V): the distribution of the target around its label."""
    num_labels = rows.shape[1]
    if gaussian_stddev is not None:
        columns = torch.arange(num_labels, device=rows.device, dtype=rows.dtype)
        return (-0.5 * ((columns - labels[:, None]) / gaussian_stddev) ** 2).softmax(dim=1)
    elsewhere = torch.full_like(rows, label_smoothing / (num_labels - 1), requires_grad=False)
    return elsewhere.scatter_(1, labels[:, None], 1.0 - label_smoothing)


def _focus(losses: torch.Tensor, rest: torch.Tensor, focal_factor: float) -> torch.Tensor:
    """(N,): losses · (1 - p)^γ of 1 - p (N,), 0 at p = 1 with gradient 0; an infinite loss stays as it is."""
    # At p = 1 and γ < 1 the power's derivative is infinite, the loss 0, and their product would be NaN.
    some = rest > torch.finfo(rest.dtype).tiny
    factor = torch.where(some, torch.where(some, rest, 1.0) ** focal_factor, 0.0)
    infinite = torch.isinf(losses)
    return torch.where(infinite, losses, factor * torch.where(infinite, 0.0, losses))
