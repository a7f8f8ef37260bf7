"""Where an `FsaBatch` meets the operators: the full sum over its paths, the best path, and label posteriors.

All take per-frame label scores (natural log, larger is better, normalized or not) and sum or search over the paths of
one automaton per utterance, or of one `Fsa` that all utterances share and that is never copied. A path π of T arcs
scores Σ_t scores[t, label(π_t)] + weight(π_t), plus the final weight of the state where it ends. Equations:
`seqtrain.reference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from seqtrain.capture import is_capturing, refuse_capture, refused
from seqtrain.errors import ArgumentError, DeviceError, DtypeError, InfeasibleError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch, stationary_distribution
from seqtrain.fsa.k2 import as_automata
from seqtrain.infeasible import NO_COUNT, NOT_HERE, InfeasibleCount, handle, report
from seqtrain.ops.arguments import gradient_layout
from seqtrain.ops.automata import Automata
from seqtrain.ops.best_path import best_path as best_path_op
from seqtrain.ops.denominator import denominator as denominator_op
from seqtrain.ops.denominator import lay_out
from seqtrain.ops.full_sum import full_sum as full_sum_op
from seqtrain.ops.full_sum_transforms import FullSum, FullSumGradient
from seqtrain.ops.posteriors import posteriors as posteriors_op
from seqtrain.scores import (
    Scores,
    check_derivative,
    check_gradient_out,
    check_policy,
    check_scores,
    derivative_anchor,
    integers_beside,
    split_scores,
)
from seqtrain.torch_versions import is_compiling
from seqtrain.transforms import check_transforms, has_tangent, inside_transform

__all__ = [
    "Alignment",
    "CompactPosteriors",
    "best_path",
    "compact_posteriors",
    "full_sum",
    "leaky_full_sum",
    "posteriors",
]


class Alignment(NamedTuple):
    """The best path of each utterance.

    Attributes:
        score: (B,) log score of the path (float64 for float64 scores, else float32).
        labels: (B, T) int64, the label of each frame; -1 past the end.
        states: (B, T) int64, the state entered at each frame; -1 past the end.
        arcs: (B, T) int64, the arc taken, as an index into that automaton's arcs; -1 past the end.
        lengths: (B,) int64 frames.
    """

    score: torch.Tensor
    labels: torch.Tensor
    states: torch.Tensor
    arcs: torch.Tensor
    lengths: torch.Tensor


class CompactPosteriors(NamedTuple):
    """Posteriors of the labels that an automaton uses, without the zeros of all others.

    Attributes:
        value: (B,) full sum.
        labels: (G, K) int64 label of each column, -1 past the last; G = 1 for a shared automaton, else B.
        occupancies: (B, T, K) or packed (ΣT, K); undefined past an utterance's end.
    """

    value: torch.Tensor
    labels: torch.Tensor
    occupancies: torch.Tensor


class _Prepared(NamedTuple):
    values: torch.Tensor
    offsets: torch.Tensor | None
    lengths: torch.Tensor
    automata: tuple[torch.Tensor, ...]
    tags: Sequence[str] | None


def _flat(
    fsa: FsaBatch | Fsa, batch: int, device: torch.device
) -> tuple[tuple[torch.Tensor, ...], Sequence[str] | None]:
    """The automata's tensors in the operators' order; a single `Fsa` becomes the one that all share."""
    automata = as_automata(fsa)
    if automata.weights.device.type != "cpu" and automata.weights.device != device:
        raise DeviceError(
            f"fsa is on {automata.weights.device}, the scores on {device}: pass fsa.to('cpu'), which suits all scores",
            argument="fsa",
        )
    if isinstance(automata, Fsa):
        return _shared(automata), None
    if len(automata) != batch:
        raise ShapeError(
            f"fsa holds {len(automata)} automata for {batch} utterances; one automaton for all is passed as an Fsa",
            argument="fsa",
        )
    return (
        automata.arcs, automata.weights, automata.arc_offsets, automata.final_states, automata.final_weights,
        automata.final_offsets, automata.starts, automata.num_states,
    ), automata.tags  # fmt: skip


def _shared(fsa: Fsa) -> tuple[torch.Tensor, ...]:
    """The structure in host memory, wherever the weights are."""
    return (
        fsa.arcs, fsa.weights, torch.tensor([0, fsa.arcs.shape[0]]),
        fsa.final_states, fsa.final_weights, torch.tensor([0, fsa.final_states.shape[0]]),
        torch.tensor([fsa.start], dtype=torch.int32), torch.tensor([fsa.num_states], dtype=torch.int32),
    )  # fmt: skip


def _prepare(scores: Scores, lengths: torch.Tensor, fsa: FsaBatch | Fsa, on_infeasible: str) -> _Prepared:
    values, offsets = split_scores(scores)
    check_scores(values, offsets, cuda=True)
    check_policy(on_infeasible)
    batch = values.shape[0] if offsets is None else offsets.shape[0] - 1
    lengths = integers_beside(values, lengths, "lengths", (batch,))
    automata, tags = _flat(fsa, batch, values.device)
    return _Prepared(values, offsets, lengths, automata, tags)


def _under_transforms(
    p: _Prepared, on_infeasible: str, infeasible: InfeasibleCount | None
) -> tuple[tuple[torch.Tensor | None, ...], tuple[torch.Tensor, torch.Tensor]] | None:
    """Where a transform of torch.func or a tangent is at work: arguments of FullSum, and its value and status."""
    scores, weights, final_weights = p.values, p.automata[1], p.automata[4]
    if not inside_transform() and not any(map(has_tangent, (scores, weights, final_weights))):
        return None
    check_transforms()
    arcs, _, arc_offsets, final_states, _, *others = p.automata
    inputs = (scores, weights, final_weights, p.offsets, p.lengths, arcs, arc_offsets, final_states, *others)
    try:
        found: tuple[torch.Tensor, torch.Tensor] = FullSum.apply(  # type: ignore[no-untyped-call]  # of torch
            *inputs, on_infeasible, NO_COUNT if infeasible is None else infeasible.handle
        )
    except InfeasibleError as error:
        raise error.with_tags(p.tags) from None
    return inputs, found


def _layout(fsa: Fsa, p: _Prepared) -> torch.Tensor | None:
    """The shared automaton's layout, kept with it until other arcs are forbidden; compiled code makes its own.

    A capture of a CUDA graph takes the latest one.
    """
    if is_compiling():
        return None
    automata, kept = p.automata, fsa.derived.get("denominator")
    if is_capturing(p.values.device):
        if kept is None:
            raise refused(
                "the automaton has not been laid out yet, and can't be in a capture in a CUDA graph: make one call, "
                "forward and backward, with this very Fsa before the capture"
            )
        latest: torch.Tensor = kept[1]
        return latest
    weights, final_weights = automata[1].detach(), automata[4].detach()
    forbidden = torch.cat((weights == -torch.inf, final_weights == -torch.inf)).cpu()
    if kept is None or not torch.equal(kept[0], forbidden):
        flat = Automata(*(t.detach() for t in automata))
        flat.check_weights()
        kept = fsa.derived["denominator"] = (forbidden, lay_out(flat))
    layout: torch.Tensor = kept[1]
    return layout


def _side_by_side(p: _Prepared, fsa: FsaBatch | Fsa) -> bool:
    """Whether the kernel for a shared automaton is the faster one: a single utterance leaves its lanes empty.

    On CUDA there are no lanes of utterances, and what is laid out once is faster.
    """
    return isinstance(fsa, Fsa) and (p.lengths.shape[0] > 1 or p.values.device.type == "cuda")


def _sum(
    p: _Prepared,
    fsa: FsaBatch | Fsa,
    *,
    gradient_out: torch.Tensor | None,
    on_infeasible: str,
    infeasible: InfeasibleCount | None,
    leak: float = 0.0,
    distribution: torch.Tensor | None = None,
) -> torch.Tensor:
    """What `full_sum` and `leaky_full_sum` share, once their arguments are checked."""
    check_gradient_out(gradient_out, p.values)
    weights, final_weights = p.automata[1], p.automata[4]
    recording = torch.is_grad_enabled()
    with_scores = recording and p.values.requires_grad
    with_weights = recording and (weights.requires_grad or final_weights.requires_grad)
    anchor = None
    if with_scores or with_weights:
        # A leaky sum has no second derivative that would need the scores.
        anchor = p.values[:0].clone() if leak != 0.0 else derivative_anchor(p.values, gradient_out)
    arguments = (p.values, p.offsets, p.lengths, *p.automata, anchor, gradient_out)
    rest = (with_scores, with_weights, on_infeasible, handle(infeasible))
    try:
        if isinstance(fsa, Fsa) and (leak != 0.0 or _side_by_side(p, fsa)):
            found = denominator_op(*arguments, _layout(fsa, p), leak, distribution, *rest)
        else:
            found = full_sum_op(*arguments, *rest)
    except InfeasibleError as error:
        raise error.with_tags(p.tags) from None
    value: torch.Tensor = found[0]
    if not is_compiling():
        report(found[-1], p.tags, infeasible, on_infeasible)
    return value


def full_sum(
    scores: Scores,
    lengths: torch.Tensor,
    fsa: FsaBatch | Fsa,
    *,
    on_infeasible: str = "raise",
    gradient_out: torch.Tensor | None = None,
    infeasible: InfeasibleCount | None = None,
) -> torch.Tensor:
    """Log of the sum over all paths of exp(path score), differentiable.

    Args:
        scores: (B, T, V) float16, bfloat16, float32 or float64, any strides, or `Packed`. Arithmetic is float32 with a
            range of its own (float64 for float64 scores).
        lengths: (B,) int frames of each utterance.
        fsa: a batch of B automata, or one `Fsa` that all share; k2's FsaVec and Fsa likewise. Where its weights require
            grad, they get one.
        on_infeasible: what to do with an utterance that no path fits: "raise" InfeasibleError naming every one
            of them, "mask" (value 0, gradient 0), or "inf" (value -inf, gradient 0).
        gradient_out: memory like the scores that the gradient is written to instead of to fresh memory; the scores
            themselves may be passed (detached), and are overwritten then. Excludes create_graph and torch.compile.
            In place suits only scores whose values nobody else has saved for a backward of their own: autograd
            raises otherwise. One memory serves one loss of a backward pass.
        infeasible: counts the utterances that were masked.

    Over one `Fsa` it can be captured in a CUDA graph, with lengths on the device of the scores, after a call outside of
    the capture: docs/cuda.md.

    Scores further than 4e7 below the best of their frame, or a path that falls behind by more than 9e7 in all, count
    as probability zero.

    Returns:
        (B,) float32 (float64 for float64 scores); larger is better. Its gradient with respect to the scores are the
        posteriors of the labels, with respect to the arc weights the expected counts of the arcs.

    Raises:
        InfeasibleError, LabelError, NonFiniteScoresError, ShapeError, DtypeError, DeviceError, ArgumentError.
        DerivativeError: when the gradient is differentiated more than once, or at all in compiled code.
        CudaError: in a capture, for what can't be captured.
    """
    fsa = as_automata(fsa)
    p = _prepare(scores, lengths, fsa, on_infeasible)
    transformed = _under_transforms(p, on_infeasible, infeasible)
    if transformed is not None:
        if gradient_out is not None:
            raise ArgumentError(
                "gradient_out can't be used under torch.func or with forward-mode derivatives",
                argument="gradient_out",
            )
        return transformed[1][0]
    return _sum(p, fsa, gradient_out=gradient_out, on_infeasible=on_infeasible, infeasible=infeasible)


def leaky_full_sum(
    scores: Scores,
    lengths: torch.Tensor,
    fsa: Fsa,
    *,
    leak: float = 1e-5,
    distribution: torch.Tensor | None = None,
    on_infeasible: str = "raise",
    gradient_out: torch.Tensor | None = None,
    infeasible: InfeasibleCount | None = None,
) -> torch.Tensor:
    """`full_sum` over one automaton for all utterances, with a leak: LF-MMI's denominator.

    Before the first frame and after each one a path may jump, with the weight leak · distribution[s], to any state s.
    So it forgets where it came from, as a chunk cut out of an utterance needs it. Equations: `seqtrain.reference`.

    Args:
        scores, lengths, on_infeasible, gradient_out, infeasible: as in `full_sum`.
        fsa: the automaton that all share; states on no path from its start to a final state don't count.
        leak: the coefficient, at least 0.
        distribution: (S,) float, not negative, where to jump; None means `seqtrain.fsa.stationary_distribution`. The
            leak and the distribution are constants and get no gradient.

    Returns:
        (B,) as `full_sum`. Scores further than 550 below the best that the automaton uses at that frame count as that
        far below, where a path depends on them as probability zero.

    Raises:
        As `full_sum`; ArgumentError for a leak or a distribution that isn't one, DtypeError for an FsaBatch.
    """
    shared = as_automata(fsa)
    if not isinstance(shared, Fsa):
        raise DtypeError(
            f"a leaky sum takes one Fsa that all utterances share, got {type(shared).__name__}",
            argument="fsa",
        )
    if not 0.0 <= leak < float("inf"):
        raise ArgumentError(f"leak must be a finite number >= 0, got {leak}", argument="leak")
    p = _prepare(scores, lengths, shared, on_infeasible)
    check_derivative(p.values, p.automata[1], p.automata[4])
    target = stationary_distribution(shared) if distribution is None else distribution.detach()
    if tuple(target.shape) != (shared.num_states,):
        raise ShapeError(
            f"distribution must have shape ({shared.num_states},), one value a state, got {tuple(target.shape)}",
            argument="distribution",
        )
    if target.device.type != "cpu" and target.device != p.values.device:
        raise DeviceError(
            f"distribution is on {target.device}, the scores on {p.values.device}: pass distribution.cpu(), which "
            "suits all scores",
            argument="distribution",
        )
    unseen = is_compiling() or is_capturing(target.device)
    if not unseen and not bool(((target >= 0) & (target < torch.inf)).all()):
        s = int((~((target >= 0) & (target < torch.inf))).nonzero()[0])
        raise ArgumentError(
            f"distribution[{s}] = {float(target[s])}; probabilities must be finite and at least 0",
            argument="distribution",
        )
    return _sum(
        p, shared, gradient_out=gradient_out, on_infeasible=on_infeasible, infeasible=infeasible, leak=leak,
        distribution=target,
    )  # fmt: skip


def compact_posteriors(
    scores: Scores, lengths: torch.Tensor, fsa: FsaBatch | Fsa, *, on_infeasible: str = "raise"
) -> CompactPosteriors:
    """Full sum and its gradient in one call without autograd, only for the labels that the automata use.

    Arguments and errors are those of `full_sum`. The gradient with respect to the scores is `occupancies[b, t, k]` at
    label `labels[b, k]` and zero elsewhere: for a large V this is a fraction of the dense gradient.
    """
    fsa = as_automata(fsa)
    p = _prepare(scores, lengths, fsa, on_infeasible)
    refuse_capture(
        p.values.device, "compact_posteriors", "they are cleared where an utterance has no path",
        "compute them outside of the capture, or capture posteriors over one Fsa that all utterances share",
    )  # fmt: skip
    check_derivative(p.values, p.automata[1], p.automata[4])
    arguments = (p.values.detach(), p.offsets, p.lengths, *(t.detach() for t in p.automata), None, None)
    rest = (True, False, on_infeasible, NOT_HERE)
    try:
        if isinstance(fsa, Fsa) and _side_by_side(p, fsa):
            found = denominator_op(*arguments, _layout(fsa, p), 0.0, None, *rest)
        else:
            found = full_sum_op(*arguments, *rest)
        value, occupancies, columns, _, _, status = found
    except InfeasibleError as error:
        raise error.with_tags(p.tags) from None
    report(status, p.tags, None, on_infeasible)
    for b in (status < 0).nonzero().flatten().tolist():
        rows = occupancies[b] if p.offsets is None else occupancies[p.offsets[b] : p.offsets[b + 1]]
        rows.zero_()
    return CompactPosteriors(value, columns, occupancies)


def posteriors(
    scores: Scores,
    lengths: torch.Tensor,
    fsa: FsaBatch | Fsa,
    *,
    on_infeasible: str = "raise",
    infeasible: InfeasibleCount | None = None,
) -> torch.Tensor:
    """Probability of each label at each frame, given the automaton.

    Arguments and errors are those of `full_sum`. Their first derivative, to scores and weights, is a second one of
    `full_sum`; they have no other.

    Returns:
        Like the scores, (B, T, V) or packed (ΣT, V), in their dtype: each frame of an utterance sums to 1; zero past
        its end and where it has no path.
    """
    fsa = as_automata(fsa)
    p = _prepare(scores, lengths, fsa, on_infeasible)
    transformed = _under_transforms(p, on_infeasible, infeasible)
    if transformed is not None:
        inputs, (value, status) = transformed
        dense: torch.Tensor
        dense, *_ = FullSumGradient.apply(  # type: ignore[no-untyped-call]  # of torch
            torch.ones_like(value), *inputs, status
        )
        return dense
    arguments = (p.values, p.offsets, p.lengths, *p.automata, on_infeasible, handle(infeasible))
    if is_compiling():
        compiled: torch.Tensor = posteriors_op(*arguments)[0]
        return compiled
    recorded = torch.is_grad_enabled() and any(
        t.requires_grad for t in (p.values, p.automata[1], p.automata[4])
    )
    try:
        if isinstance(fsa, Fsa) and _side_by_side(p, fsa) and not recorded:
            dense, status = _shared_posteriors(p, fsa, on_infeasible, handle(infeasible))
        else:
            dense, _, status = posteriors_op(*arguments)
    except InfeasibleError as error:
        raise error.with_tags(p.tags) from None
    report(status, p.tags, infeasible, on_infeasible)
    return dense


def _shared_posteriors(
    p: _Prepared, fsa: Fsa, on_infeasible: str, count_handle: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Posteriors and status, by the kernel for a shared automaton, whose second derivative is another's."""
    value, occupancies, columns, _, _, status = denominator_op(
        p.values, p.offsets, p.lengths, *p.automata, None, None, _layout(fsa, p), 0.0, None, True, False,
        on_infeasible, count_handle,
    )  # fmt: skip
    dense: torch.Tensor = torch.ops.seqtrain.denominator_scores_backward(
        torch.ones_like(value), p.values, p.automata[1], p.offsets, p.lengths, occupancies, columns, status,
        *gradient_layout(p.values),
    )  # fmt: skip
    return dense, status


def best_path(
    scores: Scores,
    lengths: torch.Tensor,
    fsa: FsaBatch | Fsa,
    *,
    on_infeasible: str = "raise",
    infeasible: InfeasibleCount | None = None,
) -> Alignment:
    """The path with the largest score (Viterbi), summed in float64.

    Arguments and errors are those of `full_sum`. Ties go to the arc with the lowest index into a state, and to the
    lowest final state. The scores are taken without their gradient: a derivative of `score` raises DerivativeError.
    Where an utterance has no path, labels, states and arcs are -1, and the score is 0 ("mask") or -inf ("inf").
    """
    p = _prepare(scores, lengths, fsa, on_infeasible)
    refuse_capture(
        p.values.device, "best_path", "automata are laid out in host memory in each call",
        "compute it outside of the capture",
    )  # fmt: skip
    check_derivative(p.values, p.automata[1], p.automata[4])
    longest = int(lengths.max()) if p.offsets is not None and lengths.numel() else 0
    max_frames = p.values.shape[1] if p.offsets is None else longest
    arguments = (p.values, p.offsets, p.lengths, *p.automata, max_frames, on_infeasible, handle(infeasible))
    if is_compiling():
        score, labels, states, arcs, _ = best_path_op(*arguments)
        return Alignment(score, labels, states, arcs, lengths)
    try:
        score, labels, states, arcs, status = best_path_op(*arguments)
    except InfeasibleError as error:
        raise error.with_tags(p.tags) from None
    report(status, p.tags, infeasible, on_infeasible)
    return Alignment(score, labels, states, arcs, lengths.to(device="cpu", dtype=torch.int64))
