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

from seqtrain.errors import ArgumentError, DeviceError, DtypeError, InfeasibleError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.infeasible import NO_COUNT, NOT_HERE, InfeasibleCount, handle, report
from seqtrain.ops.best_path import best_path as best_path_op
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
    host_integers,
    split_scores,
)
from seqtrain.transforms import has_tangent, inside_transform

__all__ = ["Alignment", "CompactPosteriors", "best_path", "compact_posteriors", "full_sum", "posteriors"]


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


def _flat(fsa: FsaBatch | Fsa, batch: int) -> tuple[tuple[torch.Tensor, ...], Sequence[str] | None]:
    """The automata's tensors in the operators' order; a single `Fsa` becomes the one that all share."""
    tags: Sequence[str] | None = None
    if isinstance(fsa, Fsa):
        graphs = FsaBatch.from_list([fsa])
    elif not isinstance(fsa, FsaBatch):
        raise DtypeError(f"fsa must be an FsaBatch or an Fsa, got {type(fsa).__name__}", argument="fsa")
    else:
        graphs, tags = fsa, fsa.tags
        if len(graphs) != batch:
            raise ShapeError(
                f"fsa holds {len(graphs)} automata for {batch} utterances; one automaton for all is passed as an Fsa",
                argument="fsa",
            )
    if graphs.arcs.device.type != "cpu":
        raise DeviceError(
            f"fsa is on {graphs.arcs.device}, the scores on the CPU: pass fsa.to('cpu')", argument="fsa"
        )
    return (
        graphs.arcs, graphs.weights, graphs.arc_offsets, graphs.final_states, graphs.final_weights,
        graphs.final_offsets, graphs.starts, graphs.num_states,
    ), tags  # fmt: skip


def _prepare(scores: Scores, lengths: torch.Tensor, fsa: FsaBatch | Fsa, on_infeasible: str) -> _Prepared:
    values, offsets = split_scores(scores)
    check_scores(values, offsets)
    check_policy(on_infeasible)
    batch = values.shape[0] if offsets is None else offsets.shape[0] - 1
    lengths = host_integers(lengths, "lengths", (batch,))
    automata, tags = _flat(fsa, batch)
    return _Prepared(values, offsets, lengths, automata, tags)


def _under_transforms(
    p: _Prepared, on_infeasible: str, infeasible: InfeasibleCount | None
) -> tuple[tuple[torch.Tensor | None, ...], tuple[torch.Tensor, torch.Tensor]] | None:
    """Where a transform of torch.func or a tangent is at work: arguments of FullSum, and its value and status."""
    scores, weights, final_weights = p.values, p.automata[1], p.automata[4]
    if not inside_transform() and not any(map(has_tangent, (scores, weights, final_weights))):
        return None
    arcs, _, arc_offsets, final_states, _, *others = p.automata
    inputs = (scores, weights, final_weights, p.offsets, p.lengths, arcs, arc_offsets, final_states, *others)
    try:
        found: tuple[torch.Tensor, torch.Tensor] = FullSum.apply(  # type: ignore[no-untyped-call]  # of torch
            *inputs, on_infeasible, NO_COUNT if infeasible is None else infeasible.handle
        )
    except InfeasibleError as error:
        raise error.with_tags(p.tags) from None
    return inputs, found


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
        fsa: a batch of B automata, or one `Fsa` that all share. Where its weights require grad, they get one.
        on_infeasible: what to do with an utterance that no path fits: "raise" InfeasibleError naming every one
            of them, "mask" (value 0, gradient 0), or "inf" (value -inf, gradient 0).
        gradient_out: memory like the scores that the gradient is written to instead of to fresh memory; the scores
            themselves may be passed (detached), and are overwritten then. Excludes create_graph and torch.compile.
            In place suits only scores whose values nobody else has saved for a backward of their own: autograd
            raises otherwise. One memory serves one loss of a backward pass.
        infeasible: counts the utterances that were masked.

    Scores further than 4e7 below the best of their frame, or a path that falls behind by more than 9e7 in all, count
    as probability zero.

    Returns:
        (B,) float32 (float64 for float64 scores); larger is better. Its gradient with respect to the scores are the
        posteriors of the labels, with respect to the arc weights the expected counts of the arcs.

    Raises:
        InfeasibleError, LabelError, NonFiniteScoresError, ShapeError, DtypeError, DeviceError, ArgumentError.
        DerivativeError: when the gradient is differentiated more than once, or at all in compiled code.
    """
    p = _prepare(scores, lengths, fsa, on_infeasible)
    transformed = _under_transforms(p, on_infeasible, infeasible)
    if transformed is not None:
        if gradient_out is not None:
            raise ArgumentError(
                "gradient_out can't be used under torch.func or with forward-mode derivatives",
                argument="gradient_out",
            )
        return transformed[1][0]
    check_gradient_out(gradient_out, p.values)
    weights, final_weights = p.automata[1], p.automata[4]
    recording = torch.is_grad_enabled()
    with_scores = recording and p.values.requires_grad
    with_weights = recording and (weights.requires_grad or final_weights.requires_grad)
    anchor = derivative_anchor(p.values, gradient_out) if with_scores or with_weights else None
    arguments = (
        p.values, p.offsets, p.lengths, *p.automata, anchor, gradient_out, with_scores, with_weights, on_infeasible,
        handle(infeasible),
    )  # fmt: skip
    if torch.compiler.is_compiling():
        compiled: torch.Tensor = full_sum_op(*arguments)[0]
        return compiled
    try:
        value: torch.Tensor
        value, *_, status = full_sum_op(*arguments)
    except InfeasibleError as error:
        raise error.with_tags(p.tags) from None
    report(status, p.tags, infeasible, on_infeasible)
    return value


def compact_posteriors(
    scores: Scores, lengths: torch.Tensor, fsa: FsaBatch | Fsa, *, on_infeasible: str = "raise"
) -> CompactPosteriors:
    """Full sum and its gradient in one call without autograd, only for the labels that the automata use.

    Arguments and errors are those of `full_sum`. The gradient with respect to the scores is `occupancies[b, t, k]` at
    label `labels[b, k]` and zero elsewhere: for a large V this is a fraction of the dense gradient.
    """
    p = _prepare(scores, lengths, fsa, on_infeasible)
    check_derivative(p.values, p.automata[1], p.automata[4])
    try:
        value, occupancies, columns, _, _, status = full_sum_op(
            p.values.detach(), p.offsets, p.lengths, *(t.detach() for t in p.automata), None, None, True, False,
            on_infeasible, NOT_HERE,
        )  # fmt: skip
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
    if torch.compiler.is_compiling():
        compiled: torch.Tensor = posteriors_op(*arguments)[0]
        return compiled
    try:
        dense, _, status = posteriors_op(*arguments)
    except InfeasibleError as error:
        raise error.with_tags(p.tags) from None
    report(status, p.tags, infeasible, on_infeasible)
    return dense


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
    check_derivative(p.values, p.automata[1], p.automata[4])
    longest = int(lengths.max()) if p.offsets is not None and lengths.numel() else 0
    max_frames = p.values.shape[1] if p.offsets is None else longest
    arguments = (p.values, p.offsets, p.lengths, *p.automata, max_frames, on_infeasible, handle(infeasible))
    if torch.compiler.is_compiling():
        score, labels, states, arcs, _ = best_path_op(*arguments)
        return Alignment(score, labels, states, arcs, lengths)
    try:
        score, labels, states, arcs, status = best_path_op(*arguments)
    except InfeasibleError as error:
        raise error.with_tags(p.tags) from None
    report(status, p.tags, infeasible, on_infeasible)
    return Alignment(score, labels, states, arcs, lengths.to(device="cpu", dtype=torch.int64))
