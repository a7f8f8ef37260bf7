"""Full-sum training over automata: "fast Baum-Welch".

loss_b = -log Σ_π Π_t p(x_t | s_t)-like score · transition weights, over the paths π of utterance b's automaton, with
    score[t, s] = am_scale · log max(p(s | x_t), min_prob) - prior_scale · log p(s),   arc weight = tdp_scale · weight
so the gradient with respect to log p(s | x_t) is -am_scale · γ_t(s), γ the posteriors of the labels. W. Zhou et al.:
Equivalence of Segmental and Neural Transducer Modeling; T. Raissi et al.: HMM vs. CTC for ASR: Comparison Based on
Full-Sum and Viterbi Training, Interspeech 2023. The recursion: `seqtrain.reference.full_sum`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from seqtrain.errors import ArgumentError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.fsa.k2 import as_automata
from seqtrain.functional import full_sum
from seqtrain.infeasible import InfeasibleCount
from seqtrain.losses.prior import PriorEstimator
from seqtrain.losses.reduction import check_reduction, reduce
from seqtrain.losses.sources import AutomatonSource, automaton_source
from seqtrain.scores import Packed, Scores, check_policy, check_scores, split_scores

__all__ = ["FastBaumWelchLoss", "fast_baum_welch_loss"]

_REDUCTIONS = ("none", "sum", "batch", "frames")


def _scaled(
    log_probs: torch.Tensor,
    am_scale: float,
    log_prior: torch.Tensor | None,
    prior_scale: float,
    min_prob: float,
) -> torch.Tensor:
    plain = log_prior is None or prior_scale == 0.0
    if min_prob > 0.0:
        log_probs = log_probs.clamp(min=math.log(min_prob))
    if am_scale == 1.0 and plain:
        return log_probs
    # Half precision would round each frame's scores anew; the sum over frames would show it.
    wide = log_probs.float() if log_probs.dtype in (torch.float16, torch.bfloat16) else log_probs
    scores = am_scale * wide
    return scores if plain or log_prior is None else scores - (prior_scale * log_prior).to(scores)


def _check_min_prob(min_prob: float) -> None:
    if not 0.0 <= min_prob < 1.0:
        raise ArgumentError(f"min_prob must lie in [0, 1), got {min_prob}", argument="min_prob")


def _with_scaled_weights(fsa: FsaBatch | Fsa, tdp_scale: float) -> FsaBatch | Fsa:
    fsa = as_automata(fsa)
    if tdp_scale == 1.0:
        return fsa
    if isinstance(fsa, Fsa):
        return FsaBatch.from_list([fsa]).scale_weights(tdp_scale)[0]
    return fsa.scale_weights(tdp_scale)


def fast_baum_welch_loss(
    log_probs: Scores,
    lengths: torch.Tensor,
    fsa: FsaBatch | Fsa,
    *,
    am_scale: float = 1.0,
    tdp_scale: float = 1.0,
    log_prior: torch.Tensor | None = None,
    prior_scale: float = 0.0,
    min_prob: float = 0.0,
    reduction: str = "none",
    on_infeasible: str = "raise",
    infeasible: InfeasibleCount | None = None,
) -> torch.Tensor:
    """Negative full-sum log-likelihood of each utterance's automaton.

    Args:
        log_probs: (B, T, V) or `Packed` (ΣT, V) log p(s | x_t), or any scores.
        lengths: (B,) int frames.
        fsa: a batch of B automata, or one `Fsa` for all; k2's FsaVec and Fsa likewise.
        am_scale: factor of the scores.
        tdp_scale: factor of arc and final weights (time distortion penalties); 0 switches weights off, and keeps
            forbidden arcs forbidden.
        log_prior: (V,) log p(s).
        prior_scale: factor of the prior.
        min_prob: probabilities below count as this one, and get gradient 0: a floor under what a single frame can cost.
        reduction: "none", "sum", "batch" or "frames".
        on_infeasible, infeasible: as in `seqtrain.full_sum`.

    Returns:
        (B,) losses, or their reduction. With a prior, a loss may be negative.

    Raises:
        As `seqtrain.full_sum`; ArgumentError for a prior scale without a prior, or a min_prob outside [0, 1).
    """
    check_reduction(reduction, allowed=_REDUCTIONS)
    _check_min_prob(min_prob)
    if prior_scale != 0.0 and log_prior is None:
        raise ArgumentError(f"prior_scale = {prior_scale}, but there is no prior", argument="prior_scale")
    values, offsets = split_scores(log_probs)
    check_scores(values, offsets, cuda=True)
    num_labels = values.shape[-1]
    if log_prior is not None and tuple(log_prior.shape) != (num_labels,):
        raise ShapeError(
            f"log_prior must have shape ({num_labels},), one value a label, got {tuple(log_prior.shape)}",
            argument="log_prior",
        )
    if isinstance(log_probs, Packed):
        scores: Scores = Packed(
            _scaled(log_probs.values, am_scale, log_prior, prior_scale, min_prob), log_probs.offsets
        )
    else:
        scores = _scaled(log_probs, am_scale, log_prior, prior_scale, min_prob)
    sums = full_sum(
        scores,
        lengths,
        _with_scaled_weights(fsa, tdp_scale),
        on_infeasible=on_infeasible,
        infeasible=infeasible,
    )
    return reduce(-sums, reduction, lengths=lengths)


class FastBaumWelchLoss(torch.nn.Module):
    """`fast_baum_welch_loss` with its options and a source of automata.

    Called with (log_probs (B, T, V), lengths (B,), automata): automata is an FsaBatch, an Fsa, or the names of the
    utterances, for which the source is asked; with a topology also with (log_probs, lengths, targets=(B, U),
    target_lengths=(B,)), of which the automata are made. A `PriorEstimator` in "running" mode is updated with each
    batch while the module trains, before it's used.

    Args:
        automata: source for names: an aligner's client, the address of its service (`unix:/path`, `host:port`), a
            local builder; or None where batches of automata are passed.
        topology: makes automata of targets: `seqtrain.fsa.ctc`, `rna`, `linear`, or any function of (targets,
            target_lengths), such as `functools.partial(seqtrain.fsa.hmm, transitions=…)`.
        prior: a PriorEstimator, or (V,) log prior.
        on_infeasible: as in `seqtrain.full_sum`; `infeasible` counts what was taken out.
    """

    def __init__(
        self,
        automata: AutomatonSource | str | None = None,
        *,
        topology: Callable[[torch.Tensor, torch.Tensor], FsaBatch] | None = None,
        am_scale: float = 1.0,
        tdp_scale: float = 1.0,
        prior: PriorEstimator | torch.Tensor | None = None,
        prior_scale: float = 0.0,
        min_prob: float = 0.0,
        reduction: str = "batch",
        on_infeasible: str = "raise",
    ) -> None:
        super().__init__()
        check_reduction(reduction, allowed=_REDUCTIONS)
        check_policy(on_infeasible)
        if prior_scale != 0.0 and prior is None:
            raise ArgumentError(f"prior_scale = {prior_scale}, but there is no prior", argument="prior_scale")
        _check_min_prob(min_prob)
        self.automata = None if automata is None else automaton_source(automata)
        self.topology = topology
        self.am_scale = am_scale
        self.tdp_scale = tdp_scale
        self.prior_scale = prior_scale
        self.min_prob = min_prob
        self.reduction = reduction
        self.on_infeasible = on_infeasible
        self.infeasible = InfeasibleCount()
        self.prior = prior if isinstance(prior, PriorEstimator) else None
        self.fixed_log_prior: torch.Tensor | None
        self.register_buffer("fixed_log_prior", prior if isinstance(prior, torch.Tensor) else None)

    def log_prior(self) -> torch.Tensor | None:
        """(V,) the prior that the next call uses, or None."""
        return self.fixed_log_prior if self.prior is None else self.prior.log_prior

    def _graphs(
        self,
        automata: FsaBatch | Fsa | Sequence[str] | None,
        targets: torch.Tensor | None,
        target_lengths: torch.Tensor | None,
    ) -> FsaBatch | Fsa:
        if (automata is None) == (targets is None):
            raise ArgumentError(
                "pass either automata (or names of utterances), or targets with target_lengths",
                argument="automata",
            )
        if automata is None or targets is not None:
            if self.topology is None or targets is None or target_lengths is None:
                raise ArgumentError(
                    "targets need their target_lengths, and a topology that makes automata of them: "
                    "FastBaumWelchLoss(topology=seqtrain.fsa.ctc)",
                    argument="targets",
                )
            return self.topology(targets, target_lengths)
        if not isinstance(automata, Sequence):
            return as_automata(automata)
        if self.automata is None:
            raise ArgumentError(
                "names of utterances were passed, but the loss has no source of automata: "
                "FastBaumWelchLoss(automata=AlignerClient(…))",
                argument="automata",
            )
        return self.automata.automata(automata)

    def forward(
        self,
        log_probs: Scores,
        lengths: torch.Tensor,
        automata: FsaBatch | Fsa | Sequence[str] | None = None,
        *,
        targets: torch.Tensor | None = None,
        target_lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if self.prior is not None and self.training and self.prior.mode == "running":
            if isinstance(log_probs, Packed):
                values = log_probs.values
                self.prior.update(values[None], torch.tensor([values.shape[0]]))
            else:
                self.prior.update(log_probs.detach(), lengths)
        graphs = self._graphs(automata, targets, target_lengths)
        return fast_baum_welch_loss(
            log_probs, lengths, graphs, am_scale=self.am_scale, tdp_scale=self.tdp_scale,
            log_prior=self.log_prior(), prior_scale=self.prior_scale, min_prob=self.min_prob, reduction=self.reduction,
            on_infeasible=self.on_infeasible, infeasible=self.infeasible,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"am_scale={self.am_scale}, tdp_scale={self.tdp_scale}, prior_scale={self.prior_scale}, "
            f"min_prob={self.min_prob}, reduction={self.reduction!r}, on_infeasible={self.on_infeasible!r}"
        )
