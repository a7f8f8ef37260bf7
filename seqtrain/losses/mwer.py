"""Minimum word (token) error rate training on hypotheses.

With the exact log probability s_k of each hypothesis (all its alignments: CTC) and its edit distance r_k:

* over an n-best list, probabilities renormalized: E = Σ_k w_k r_k, w = softmax(s), ∂E/∂s_k = w_k (r_k - E)
  (R. Prabhavalkar et al.: Minimum Word Error Rate Training for Attention-based Sequence-to-Sequence Models, ICASSP
  2018)
* over M samples: E ≈ r̄ = Σ_k r_k / M, ∂E ≈ Σ_k (r_k - r̄) / (M - 1) ∂s_k, which is each sample's risk less the mean of
  the others', and so has the expectation of the true gradient (M. Shannon: Optimizing Expected Word Error Rate via
  Sampling for Speech Recognition, Interspeech 2017; W. Kool, H. van Hoof, M. Welling: Buy 4 REINFORCE Samples, Get a
  Baseline for Free, 2019)

In both the coefficients of ∂s_k sum to zero: what all hypotheses of an utterance have in common, such as the
normalization, has no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from seqtrain.errors import ArgumentError, Infeasible, InfeasibleError, LabelError, ShapeError
from seqtrain.infeasible import InfeasibleCount, report
from seqtrain.label_map import LabelMap
from seqtrain.losses.ctc import ctc_loss
from seqtrain.losses.edit_distance import edit_distance
from seqtrain.losses.expected_loss import expected_loss
from seqtrain.losses.frames import widened
from seqtrain.losses.hypotheses import Hypotheses, padded_scores, sample_ctc_hypotheses
from seqtrain.losses.lattice_search import LatticeSearch
from seqtrain.losses.reduction import check_reduction, reduce
from seqtrain.scores import Scores, check_policy, host_integers

__all__ = ["MWERLoss", "Search", "hypothesis_scores", "mwer_loss"]

Search = Callable[[torch.Tensor, torch.Tensor], Hypotheses]
"""From log-probabilities (B, T, V) without gradient and lengths (B,): the hypotheses."""

_SEARCHES = ("sample", "nbest")
_ESTIMATES = ("renormalized", "sampled")


def hypothesis_scores(
    log_probabilities: torch.Tensor,
    lengths: torch.Tensor,
    hypotheses: Hypotheses,
    *,
    blank: int = 0,
    label_loop: bool = True,
) -> torch.Tensor:
    """Log probability of each hypothesis, summed over all its alignments; with gradient.

    Only the columns that an utterance's hypotheses use are copied for each of them.

    Args:
        log_probabilities: (B, T, V); unnormalized scores give unnormalized values.

    Returns:
        (B, N); -inf where a hypothesis doesn't fit the frames; undefined past an utterance's count.

    Raises:
        LabelError: a hypothesis has the blank, or a label that isn't a column.
    """
    batch, frames, num_labels = log_probabilities.shape
    labels, label_lengths = hypotheses.labels, hypotheses.lengths
    count, longest = labels.shape[1:]
    inside = torch.arange(longest) < label_lengths[:, :, None]
    wrong = (inside & ((labels < 0) | (labels >= num_labels) | (labels == blank))).nonzero()
    if wrong.numel():
        b, k, u = wrong[0].tolist()
        raise LabelError(
            f"hypotheses: label {u} of hypothesis {k} of utterance {b} is {int(labels[b, k, u])}, which must be a "
            f"column of the scores, 0 … {num_labels - 1}, and not the blank ({blank})",
            argument="hypotheses", utterance=b, position=u, label=int(labels[b, k, u]), num_labels=num_labels,
        )  # fmt: skip
    used = [torch.unique(labels[b][inside[b]]) for b in range(batch)]
    width = 1 + max((u.numel() for u in used), default=0)
    columns = torch.full((batch, width), blank, dtype=torch.int64)  # the blank, then the labels in use
    targets = torch.zeros_like(labels)
    for b, own in enumerate(used):
        columns[b, 1 : 1 + own.numel()] = own
        if own.numel():
            targets[b] = (torch.searchsorted(own, labels[b].contiguous()) + 1).clamp(max=own.numel())
    columns = columns.to(log_probabilities.device)
    rows = log_probabilities.gather(2, columns[:, None].expand(-1, frames, -1))
    repeated = rows[:, None].expand(-1, count, -1, -1).reshape(batch * count, frames, width)
    losses = ctc_loss(
        repeated, targets.view(batch * count, longest), lengths.repeat_interleave(count), label_lengths.view(-1),
        label_loop=label_loop, on_infeasible="inf",
    )  # fmt: skip
    return -losses.view(batch, count)


def mwer_loss(
    scores: Scores,
    references: torch.Tensor,
    lengths: torch.Tensor,
    reference_lengths: torch.Tensor,
    hypotheses: Hypotheses,
    *,
    estimate: str = "renormalized",
    blank: int = 0,
    normalize: bool = False,
    label_loop: bool = True,
    label_map: LabelMap | None = None,
    reduction: str = "none",
    on_infeasible: str = "raise",
    tags: Sequence[str] | None = None,
    infeasible: InfeasibleCount | None = None,
) -> torch.Tensor:
    """Expected edit distance of the hypotheses to the references, with gradient to the scores.

    Args:
        scores: (B, T, V) or `Packed`, natural log, float16 … float64.
        references: (B, R) int labels, padded with anything.
        lengths, reference_lengths: (B,) int.
        hypotheses: of each utterance. An n-best list, or draws (`sample_ctc_hypotheses`).
        estimate: "renormalized": their probabilities among one another are their weights, whatever they were drawn by;
            "sampled": they are at least two draws from the scores' own distribution, and count as often as they came.
        blank, label_loop: as in `ctc_loss`.
        normalize: apply log-softmax over V first.
        label_map: what becomes of labels before they are compared, as in `edit_distance`.
        reduction: "none", "sum", "batch", "frames" or "targets" (reference labels).
        on_infeasible: what to do with an utterance none of whose hypotheses fits its frames (or that has none):
            "raise" InfeasibleError, "mask" (loss 0, gradient 0), or "inf" (loss inf, gradient 0).
        tags: names of the utterances for messages.
        infeasible: counts the utterances that were masked.

    Returns:
        (B,) float32 (float64 for float64 scores), or their reduction.

    Raises:
        InfeasibleError, LabelError, NonFiniteScoresError, ShapeError, DtypeError, DeviceError. ArgumentError: also
        where "sampled" has a single draw.
    """
    check_reduction(reduction)
    check_policy(on_infeasible)
    _check_estimate(estimate)
    values = widened(padded_scores(scores))
    batch = values.shape[0]
    lengths = host_integers(lengths, "lengths", (batch,)).long()
    reference_lengths = host_integers(reference_lengths, "reference_lengths", (batch,)).long()
    references = host_integers(references, "references", (batch, None))
    if hypotheses.labels.shape[0] != batch:
        raise ShapeError(
            f"hypotheses are of {hypotheses.labels.shape[0]} utterances, the scores of {batch}",
            argument="hypotheses",
        )
    if tags is not None and len(tags) != batch:
        raise ShapeError(f"tags must name {batch} utterances, got {len(tags)}", argument="tags")
    log_probabilities = values.log_softmax(-1) if normalize else values
    found = hypothesis_scores(log_probabilities, lengths, hypotheses, blank=blank, label_loop=label_loop)
    counts, count, longest = hypotheses.counts, *hypotheses.labels.shape[1:]
    outside = torch.arange(count) >= counts[:, None]
    dead = (torch.isneginf(found.detach()).cpu() | outside).all(dim=1)
    _apply_policy(dead, lengths, counts, tags, on_infeasible, infeasible)
    risks = edit_distance(
        hypotheses.labels.view(batch * count, longest), references.repeat_interleave(count, dim=0),
        hypotheses.lengths.view(-1), reference_lengths.repeat_interleave(count), label_map=label_map,
    ).view(batch, count).to(found)  # fmt: skip
    if estimate == "renormalized":
        alive = torch.where(dead, 0, counts)
        risk = expected_loss(
            found, risks, num_hypotheses=alive, subtract_mean_loss=True, correction_in_gradient_only=True
        )
    else:
        risk = _sampled(found, risks, hypotheses.drawn, dead)
    if on_infeasible == "inf":
        risk = risk.masked_fill(dead.to(risk.device), torch.inf)
    return reduce(risk, reduction, lengths=lengths, target_lengths=reference_lengths)


def _check_estimate(estimate: str) -> None:
    if estimate not in _ESTIMATES:
        raise ArgumentError(
            f"estimate must be one of {', '.join(map(repr, _ESTIMATES))}, got {estimate!r}",
            argument="estimate",
        )


def _apply_policy(
    dead: torch.Tensor,
    lengths: torch.Tensor,
    counts: torch.Tensor,
    tags: Sequence[str] | None,
    policy: str,
    infeasible: InfeasibleCount | None,
) -> None:
    if policy == "raise" and bool(dead.any()):
        raise InfeasibleError(
            [
                Infeasible(
                    b, None if tags is None else tags[b], int(lengths[b]), None,
                    "it has no hypotheses" if not int(counts[b]) else "none of its hypotheses has a path",
                )
                for b in dead.nonzero().flatten().tolist()
            ]
        )  # fmt: skip
    report(torch.where(dead, -1, 0), tags, infeasible, policy)


def _sampled(
    scores: torch.Tensor, risks: torch.Tensor, drawn: torch.Tensor, dead: torch.Tensor
) -> torch.Tensor:
    """(B,) mean risk of the draws, with the gradient of the score function, less the mean of the other draws."""
    total = drawn.sum(dim=1)
    single = ((total < 2) & ~dead).nonzero()
    if single.numel():
        b = int(single[0])
        raise ArgumentError(
            f"estimate='sampled' takes two draws at least, for each is compared with the others; utterance {b} has "
            f"{int(total[b])}",
            argument="hypotheses",
        )
    times, dead = drawn.to(scores), dead.to(scores.device)
    total = total.to(scores)
    used = (times > 0) & torch.isfinite(scores.detach())
    mean = (times * risks).sum(dim=1) / total.clamp(min=1)
    coefficient = (times * (risks - mean[:, None])).masked_fill(~used, 0.0) / (total[:, None] - 1).clamp(
        min=1
    )
    own = scores.masked_fill(~used, 0.0)
    return mean.masked_fill(dead, 0.0) + (coefficient * (own - own.detach())).sum(dim=1)


class MWERLoss(torch.nn.Module):
    """`mwer_loss` with its options, and with a search for hypotheses; `infeasible` counts what a policy took out.

    Called with (scores, references, lengths, reference_lengths, *, hypotheses=None, generator=None, tags=None).

    Args:
        search: "sample": `count` draws from the scores themselves, of which the distinct ones count with
            "renormalized", all with "sampled"; "nbest": the `count` label sequences with the best paths, exact; or a
            function from log-probabilities and lengths to `Hypotheses`, such as a `LatticeSearch` with a language model
            in its graph. Where a call passes hypotheses, there is no search.
        count: draws or sequences, at least 2.
        normalize: the scores are logits.
    """

    def __init__(
        self,
        search: str | Search = "sample",
        *,
        count: int = 8,
        estimate: str = "renormalized",
        blank: int = 0,
        normalize: bool = True,
        label_loop: bool = True,
        label_map: LabelMap | None = None,
        reduction: str = "batch",
        on_infeasible: str = "raise",
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_policy(on_infeasible)
        _check_estimate(estimate)
        if isinstance(search, str) and search not in _SEARCHES:
            raise ArgumentError(
                f"search must be 'sample', 'nbest' or callable, got {search!r}", argument="search"
            )
        if search == "nbest" and estimate == "sampled":
            raise ArgumentError("the n best aren't samples: estimate='renormalized'", argument="estimate")
        if count < 2:
            raise ArgumentError(f"count must be at least 2, got {count}", argument="count")
        self.search = search
        self.count = count
        self.estimate = estimate
        self.blank = blank
        self.normalize = normalize
        self.label_loop = label_loop
        self.label_map = label_map
        self.reduction = reduction
        self.on_infeasible = on_infeasible
        self.infeasible = InfeasibleCount()

    def forward(
        self,
        scores: Scores,
        references: torch.Tensor,
        lengths: torch.Tensor,
        reference_lengths: torch.Tensor,
        *,
        hypotheses: Hypotheses | None = None,
        generator: torch.Generator | None = None,
        tags: Sequence[str] | None = None,
    ) -> torch.Tensor:
        if hypotheses is None:
            hypotheses = self._found(scores, lengths, generator)
        return mwer_loss(
            scores, references, lengths, reference_lengths, hypotheses, estimate=self.estimate, blank=self.blank,
            normalize=self.normalize, label_loop=self.label_loop, label_map=self.label_map, reduction=self.reduction,
            on_infeasible=self.on_infeasible, tags=tags, infeasible=self.infeasible,
        )  # fmt: skip

    def _found(self, scores: Scores, lengths: torch.Tensor, generator: torch.Generator | None) -> Hypotheses:
        if self.search == "sample":
            return sample_ctc_hypotheses(
                scores, lengths, self.count, blank=self.blank, label_loop=self.label_loop, generator=generator
            )
        values = widened(padded_scores(scores)).detach()
        search = self.search
        if isinstance(search, str):
            search = LatticeSearch.ctc(
                values.shape[-1], blank=self.blank, label_loop=self.label_loop, count=self.count
            )
        return search(values.log_softmax(-1) if self.normalize else values, lengths)

    def extra_repr(self) -> str:
        search = self.search if isinstance(self.search, str) else type(self.search).__name__
        return (
            f"search={search!r}, count={self.count}, estimate={self.estimate!r}, blank={self.blank}, "
            f"normalize={self.normalize}, reduction={self.reduction!r}, on_infeasible={self.on_infeasible!r}"
        )
