"""Maximum mutual information between utterances and their transcripts, with a denominator that is one graph for all.

    loss_b = den_scale · D_b - N_b + smoothing · C_b,      N_b = log Σ over paths of the numerator of utterance b,
                                                           D_b = log Σ over paths of the denominator,

both of acoustic_scale · scores; D is the leaky sum where `leak` isn't 0 (`seqtrain.reference`). So the gradient with
respect to the scores is acoustic_scale · (den_scale · γ_den - γ_num). L. Bahl et al., ICASSP 1986; lattice-free:
D. Povey et al., Interspeech 2016. Boosted (D. Povey et al., "Boosted MMI for model and feature-space discriminative
training", ICASSP 2008): a denominator's arc with label v at frame t loses boost · γ_num(t, v), its share in the
numerator, so that paths with many errors count more; that accuracy is a constant. C is a criterion of the numerator
alone that keeps scores from drifting (as in H. Su et al., ICASSP 2013):

    "ctc"  C_b = -log Σ over paths of the numerator of log-softmax(scores)
    "ce"   C_b = -Σ_t Σ_v γ_num(t, v) log-softmax(scores)(t, v),  γ_num a constant
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from seqtrain.errors import ArgumentError, DtypeError
from seqtrain.fsa import Fsa, FsaBatch, stationary_distribution
from seqtrain.fsa.k2 import as_automata
from seqtrain.functional import full_sum, leaky_full_sum, posteriors
from seqtrain.infeasible import InfeasibleCount
from seqtrain.losses.reduction import check_reduction, reduce
from seqtrain.scores import Packed, Scores, check_policy, check_scores, split_scores

__all__ = ["LFMMILoss", "MMILoss", "MMITerms", "lf_mmi_loss", "mmi_loss", "mmi_terms"]

_SMOOTHING = ("ctc", "ce")


def _check_options(
    den_scale: float, acoustic_scale: float, boost: float, smoothing: float, smoothing_kind: str
) -> None:
    for name, value in (
        ("den_scale", den_scale),
        ("acoustic_scale", acoustic_scale),
        ("boost", boost),
        ("smoothing", smoothing),
    ):
        if not 0.0 <= value < math.inf:
            raise ArgumentError(f"{name} must be a finite number >= 0, got {value}", argument=name)
    if smoothing_kind not in _SMOOTHING:
        raise ArgumentError(
            f"smoothing_kind must be one of {', '.join(map(repr, _SMOOTHING))}, got {smoothing_kind!r}",
            argument="smoothing_kind",
        )


def _like(scores: Scores, values: torch.Tensor) -> Scores:
    return Packed(values, scores.offsets) if isinstance(scores, Packed) else values


def _per_utterance(scores: Scores, frames: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """(B,) sums of one value a frame, (B, T) or (ΣT,), without what lies past an utterance's end."""
    if isinstance(scores, Packed):
        # Adding to an index would be atomic, and in any order, on a GPU.
        parts = frames.split_with_sizes(lengths.tolist()) if len(lengths) else ()
        return torch.stack([part.sum() for part in parts]) if parts else frames.new_zeros(0)
    inside = torch.arange(frames.shape[1]) < lengths.cpu()[:, None]
    return torch.where(inside.to(frames.device), frames, 0.0).sum(1)


def _smoothing(
    scores: Scores, lengths: torch.Tensor, numerator: FsaBatch, kind: str, shares: torch.Tensor | None
) -> torch.Tensor:
    values, _ = split_scores(scores)
    wide = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    normalized = wide.log_softmax(-1)
    if kind == "ctc" or shares is None:
        return -full_sum(_like(scores, normalized), lengths, numerator, on_infeasible="inf")
    frames = torch.where(shares > 0, shares.to(normalized) * normalized, 0.0).sum(-1)
    return -_per_utterance(scores, frames, lengths)


class MMITerms(NamedTuple):
    """Of each utterance, (B,): the loss, and the two sums that it's made of, -inf where there is no path."""

    losses: torch.Tensor
    numerator: torch.Tensor
    denominator: torch.Tensor


def mmi_terms(
    scores: Scores,
    lengths: torch.Tensor,
    numerator: FsaBatch,
    denominator: Fsa,
    *,
    den_scale: float = 1.0,
    acoustic_scale: float = 1.0,
    boost: float = 0.0,
    leak: float = 0.0,
    distribution: torch.Tensor | None = None,
    smoothing: float = 0.0,
    smoothing_kind: str = "ctc",
    on_infeasible: str = "raise",
    infeasible: InfeasibleCount | None = None,
) -> MMITerms:
    """Log-sum of all that the denominator allows, minus that of the numerator; and both.

    Args:
        scores: (B, T, V) or `Packed` (ΣT, V), natural log, normalized or not: a constant of a frame cancels.
        lengths: (B,) int frames.
        numerator: B automata of the transcripts; alternatives are parallel paths. With the language model's weights
            on its paths it's a part of the denominator, and the loss with den_scale 1 is not negative.
        denominator: one automaton that all share (`seqtrain.fsa.denominator`), never copied.
        den_scale, acoustic_scale: factors of the denominator's sum, and of the scores in both.
        boost: how much one accurate frame takes from a path of the denominator.
        leak, distribution: as in `seqtrain.leaky_full_sum`; 0 takes the denominator as it is.
        smoothing, smoothing_kind: weight and kind ("ctc", "ce") of the smoothing term.
        on_infeasible: as in `seqtrain.full_sum`, of utterances that have no path in either graph: "mask" takes both
            sums out, "inf" makes the loss inf, with gradient 0.
        infeasible: counts the utterances that the numerator doesn't fit.

    Returns:
        losses (smaller is better), and the sums N and D, with gradients; the denominator's is the boosted one.

    Raises:
        As `seqtrain.full_sum`; ArgumentError for an option outside its range, DtypeError where the denominator isn't
        one Fsa.
    """
    check_policy(on_infeasible)
    _check_options(den_scale, acoustic_scale, boost, smoothing, smoothing_kind)
    shared = as_automata(denominator, argument="denominator")
    if not isinstance(shared, Fsa):
        raise DtypeError(
            f"denominator must be one Fsa that all utterances share, got {type(shared).__name__}",
            argument="denominator",
        )
    values, offsets = split_scores(scores)
    check_scores(values, offsets, cuda=True)
    scaled = scores
    if acoustic_scale != 1.0:
        wide = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
        scaled = _like(scores, acoustic_scale * wide)
    policy = "raise" if on_infeasible == "raise" else "inf"
    over = full_sum(scaled, lengths, numerator, on_infeasible=policy, infeasible=infeasible)

    shares = None
    if boost != 0.0 or (smoothing != 0.0 and smoothing_kind == "ce"):
        inner, _ = split_scores(scaled)
        shares = posteriors(_like(scores, inner.detach()), lengths, numerator, on_infeasible="mask")
    competing = scaled
    if boost != 0.0 and shares is not None:
        inner, _ = split_scores(scaled)
        competing = _like(scores, inner - boost * shares.to(inner))
    if leak == 0.0:
        under = full_sum(competing, lengths, shared, on_infeasible=policy)
    else:
        under = leaky_full_sum(
            competing, lengths, shared, leak=leak, distribution=distribution, on_infeasible=policy
        )
    losses = den_scale * under - over
    usable = (over > -torch.inf) & (under > -torch.inf)
    if smoothing != 0.0:
        term = _smoothing(scores, lengths, numerator, smoothing_kind, shares)
        usable = usable & (term < torch.inf)
        losses = losses + smoothing * term
    losses = torch.where(usable, losses, 0.0 if on_infeasible == "mask" else torch.inf)
    return MMITerms(losses, over, under)


def mmi_loss(
    scores: Scores,
    lengths: torch.Tensor,
    numerator: FsaBatch,
    denominator: Fsa,
    *,
    den_scale: float = 1.0,
    acoustic_scale: float = 1.0,
    boost: float = 0.0,
    leak: float = 0.0,
    distribution: torch.Tensor | None = None,
    smoothing: float = 0.0,
    smoothing_kind: str = "ctc",
    reduction: str = "none",
    target_lengths: torch.Tensor | None = None,
    on_infeasible: str = "raise",
    infeasible: InfeasibleCount | None = None,
) -> torch.Tensor:
    """The losses of `mmi_terms`, (B,), or their reduction.

    Args:
        reduction: "none", "sum", "batch", "frames" or "targets".
        target_lengths: (B,) int, the divisor of "targets"; else not used.

    The other arguments and the errors are those of `mmi_terms`.
    """
    check_reduction(reduction)
    losses = mmi_terms(
        scores, lengths, numerator, denominator, den_scale=den_scale, acoustic_scale=acoustic_scale, boost=boost,
        leak=leak, distribution=distribution, smoothing=smoothing, smoothing_kind=smoothing_kind,
        on_infeasible=on_infeasible, infeasible=infeasible,
    ).losses  # fmt: skip
    return reduce(losses, reduction, lengths=lengths, target_lengths=target_lengths)


def lf_mmi_loss(
    scores: Scores,
    lengths: torch.Tensor,
    numerator: FsaBatch,
    denominator: Fsa,
    *,
    den_scale: float = 1.0,
    acoustic_scale: float = 1.0,
    boost: float = 0.0,
    leak: float = 1e-5,
    distribution: torch.Tensor | None = None,
    smoothing: float = 0.0,
    smoothing_kind: str = "ctc",
    reduction: str = "none",
    target_lengths: torch.Tensor | None = None,
    on_infeasible: str = "raise",
    infeasible: InfeasibleCount | None = None,
) -> torch.Tensor:
    """`mmi_loss` with a leaky denominator: lattice-free MMI, on whole utterances or chunks of them."""
    return mmi_loss(
        scores, lengths, numerator, denominator, den_scale=den_scale, acoustic_scale=acoustic_scale, boost=boost,
        leak=leak, distribution=distribution, smoothing=smoothing, smoothing_kind=smoothing_kind,
        reduction=reduction, target_lengths=target_lengths, on_infeasible=on_infeasible, infeasible=infeasible,
    )  # fmt: skip


class MMILoss(torch.nn.Module):
    """`mmi_loss` with its options, its denominator, and what makes numerators.

    Called with (scores (B, T, V), lengths (B,), numerator): an FsaBatch; or, with a topology, with
    (scores, lengths, targets=(B, U), target_lengths=(B,), tags=None), of which the numerators are made. Reduction
    "targets" takes target_lengths in both cases.

    Args:
        denominator: one automaton that all utterances share.
        topology: makes numerators of targets: `seqtrain.fsa.ctc`, or any function of (targets, target_lengths).
        den_scale, acoustic_scale, boost, smoothing, smoothing_kind, on_infeasible: as in `mmi_loss`; `infeasible`
            counts what was taken out.
        leak, distribution: as in `seqtrain.leaky_full_sum`; the distribution is found once.
    """

    def __init__(
        self,
        denominator: Fsa,
        *,
        topology: Callable[[torch.Tensor, torch.Tensor], FsaBatch] | None = None,
        den_scale: float = 1.0,
        acoustic_scale: float = 1.0,
        boost: float = 0.0,
        leak: float = 0.0,
        distribution: torch.Tensor | None = None,
        smoothing: float = 0.0,
        smoothing_kind: str = "ctc",
        reduction: str = "batch",
        on_infeasible: str = "raise",
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_policy(on_infeasible)
        _check_options(den_scale, acoustic_scale, boost, smoothing, smoothing_kind)
        self.denominator = denominator
        self.topology = topology
        self.den_scale = den_scale
        self.acoustic_scale = acoustic_scale
        self.boost = boost
        self.leak = leak
        self.distribution = (
            stationary_distribution(denominator) if leak and distribution is None else distribution
        )
        self.smoothing = smoothing
        self.smoothing_kind = smoothing_kind
        self.reduction = reduction
        self.on_infeasible = on_infeasible
        self.infeasible = InfeasibleCount()

    def forward(
        self,
        scores: Scores,
        lengths: torch.Tensor,
        numerator: FsaBatch | None = None,
        *,
        targets: torch.Tensor | None = None,
        target_lengths: torch.Tensor | None = None,
        tags: Sequence[str] | None = None,
    ) -> torch.Tensor:
        if (numerator is None) == (targets is None):
            raise ArgumentError(
                "pass either numerators, or targets with target_lengths", argument="numerator"
            )
        if numerator is None:
            if self.topology is None or targets is None or target_lengths is None:
                raise ArgumentError(
                    "targets need their target_lengths, and a topology that makes numerators of them: "
                    f"{type(self).__name__}(denominator, topology=seqtrain.fsa.ctc)",
                    argument="targets",
                )
            numerator = self.topology(targets, target_lengths).with_tags(tags)
        elif tags is not None:
            raise ArgumentError("numerators bring their own tags: FsaBatch.with_tags", argument="tags")
        losses = self.terms(scores, lengths, numerator).losses
        return reduce(losses, self.reduction, lengths=lengths, target_lengths=target_lengths)

    def terms(self, scores: Scores, lengths: torch.Tensor, numerator: FsaBatch) -> MMITerms:
        """What `mmi_terms` returns with these options."""
        return mmi_terms(
            scores, lengths, numerator, self.denominator, den_scale=self.den_scale,
            acoustic_scale=self.acoustic_scale, boost=self.boost, leak=self.leak, distribution=self.distribution,
            smoothing=self.smoothing, smoothing_kind=self.smoothing_kind, on_infeasible=self.on_infeasible,
            infeasible=self.infeasible,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"denominator={self.denominator!r}, den_scale={self.den_scale}, acoustic_scale={self.acoustic_scale}, "
            f"boost={self.boost}, leak={self.leak}, smoothing={self.smoothing} {self.smoothing_kind}, "
            f"reduction={self.reduction!r}, on_infeasible={self.on_infeasible!r}"
        )


class LFMMILoss(MMILoss):
    """`MMILoss` with a leaky denominator: lattice-free MMI."""

    def __init__(
        self,
        denominator: Fsa,
        *,
        topology: Callable[[torch.Tensor, torch.Tensor], FsaBatch] | None = None,
        den_scale: float = 1.0,
        acoustic_scale: float = 1.0,
        boost: float = 0.0,
        leak: float = 1e-5,
        distribution: torch.Tensor | None = None,
        smoothing: float = 0.0,
        smoothing_kind: str = "ctc",
        reduction: str = "batch",
        on_infeasible: str = "raise",
    ) -> None:
        super().__init__(
            denominator, topology=topology, den_scale=den_scale, acoustic_scale=acoustic_scale, boost=boost,
            leak=leak, distribution=distribution, smoothing=smoothing, smoothing_kind=smoothing_kind,
            reduction=reduction, on_infeasible=on_infeasible,
        )  # fmt: skip
