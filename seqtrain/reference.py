"""The recursions in plain float64: slow, readable, and what every kernel is measured against.

Notation. An automaton has arcs a = (p → q, label l) with log weight w(a), a start state, and final log
weights f(q). Frame t = 0 … T - 1 gives label l the score x(t, l), a natural log, normalised or not. A path π
= a_0 … a_{T-1} starts in the start state, its arcs follow each other, and it ends in a final state q:

    score(π) = Σ_t [ w(a_t) + x(t, l(a_t)) ] + f(q)

Full sum (Baum et al. 1970; Rabiner 1989, "A tutorial on hidden Markov models", section III), with ⊕ for
log-add:

    L       = ⊕_π score(π)
    α(0, s) = 0 at the start state, -inf elsewhere
    α(t+1, q) = ⊕ over arcs a = (p → q, l):  α(t, p) + w(a) + x(t, l)
    β(T, s) = f(s), -inf where s isn't final
    β(t, p)   = ⊕ over arcs a = (p → q, l):  w(a) + x(t, l) + β(t+1, q)
    L       = ⊕_s α(T, s) + f(s) = β(0, start)

The probability of arc a at frame t, given that one of the paths is taken, and all derivatives of L with it:

    ξ(t, a)      = exp( α(t, p) + w(a) + x(t, l) + β(t+1, q) - L )
    ∂L/∂x(t, l)  = Σ over arcs a with label l: ξ(t, a)          (the posteriors; each frame sums to one)
    ∂L/∂w(a)     = Σ_t ξ(t, a)                                  (expected count of the arc)
    ∂L/∂f(s)     = exp( α(T, s) + f(s) - L )

Second derivatives (the expectation semiring: Li & Eisner 2009, "First- and second-order expectation semirings"), in the
direction of tangents ẋ, ẇ, ḟ. A path has the tangent τ(π) = Σ_t [ ẇ(a_t) + ẋ(t, l(a_t)) ] + ḟ(q), and each derivative
is a mean over paths, each taken with its probability. ȧ and ḃ are the tangents of α and β, means of τ over the part of
the path before and behind; with τ(t, a) = ẇ(a) + ẋ(t, l):

    ȧ(t+1, q) = Σ over arcs a = (p → q, l):  exp( α(t, p) + w(a) + x(t, l) - α(t+1, q) ) · [ ȧ(t, p) + τ(t, a) ]
    ḃ(t, p)   = Σ over arcs a = (p → q, l):  exp( w(a) + x(t, l) + β(t+1, q) - β(t, p) ) · [ τ(t, a) + ḃ(t+1, q) ]
    L̇         = Σ_s exp( α(T, s) + f(s) - L ) · [ ȧ(T, s) + ḟ(s) ]
    ξ̇(t, a)   = ξ(t, a) · [ ȧ(t, p) + τ(t, a) + ḃ(t+1, q) - L̇ ]

The Hessian times the tangents are the sums of ξ̇ that the first derivatives are of ξ; it is the covariance of the counts
of labels at frames, arcs and final states.

Best path (Viterbi 1967): max instead of ⊕. Among equal scores the arc of the lowest number into a state wins,
at each step; among equally good final states the one of the lowest number.

CTC (Graves et al. 2006, "Connectionist temporal classification", equations 6-16), on the targets with blanks
around and between them, l'_0 … l'_{2U}: α(t, s) gathers α(t-1, s), α(t-1, s-1), and α(t-1, s-2) unless l'_s
is a blank or equals l'_{s-2}. Through y = log-softmax(x) the gradient of -L is softmax(x) · Σ_l γ(t, l) -
γ(t, l) with the posteriors γ.

Lattice. An acyclic automaton whose arcs bear whole scores w(a), states numbered so that every arc leads upwards:

    L    = ⊕_π Σ_{a in π} w(a) + f(end of π)
    α(0) = 0,   α(q) = ⊕ over arcs a = (p → q):  α(p) + w(a)
    β(p) = f(p) ⊕ (⊕ over arcs a = (p → q):  w(a) + β(q)),   L = β(0)
    ∂L/∂w(a) = exp( α(p) + w(a) + β(q) - L ),   ∂L/∂f(q) = exp( α(q) + f(q) - L )

Expected risk of a lattice, an acyclic automaton whose paths have any number of arcs, arc a with log weight w(a)
and risk r(a), final state q with f(q) and r(q) (the expectation semiring: J. Eisner, ACL 2002; Z. Li, J. Eisner,
EMNLP 2009; for lattices of speech D. Povey, PhD thesis, Cambridge 2004, section 6). A pair (β, σ) holds the log
probability of all that follows a state, and the risk expected along it; (α, ρ) the same of all that comes before:

    E       = Σ_π p(π) [ Σ_{a ∈ π} r(a) + r(q_π) ],   p(π) = exp( score(π) - L )
    σ(p)    = [ exp f(p) · r(p) + Σ over arcs a = (p → q):  exp( w(a) + β(q) ) · ( r(a) + σ(q) ) ] / exp β(p)
    ρ(q)    = [ Σ over arcs a = (p → q):  exp( α(p) + w(a) ) · ( ρ(p) + r(a) ) ] / exp α(q)
    E       = σ(start)
    ξ(a)    = exp( α(p) + w(a) + β(q) - L )
    ∂E/∂r(a) = ξ(a)
    ∂E/∂w(a) = ξ(a) · ( ρ(p) + r(a) + σ(q) - E )
and for final states likewise. A constant added to every path's risk moves E alone.

Leaky full sum (D. Povey et al. 2016, "Purely sequence-trained neural networks for ASR based on lattice-free
MMI", section 2.5), with a coefficient c and a distribution π over states: before the first frame and after each
one a path may jump, with weight c π(s), to any state s, and then goes on from there. In probabilities,

    α'(t, s) = α(t, s) + c π(s) Σ_r α(t, r)            t = 0 … T, and α' in place of α on the right of α(t+1, q)
    L        = log Σ_s α'(T, s) exp f(s)
    β'(t, s) = β(t, s) + c Σ_r π(r) β(t, r)            β(T, s) = exp f(s), and β' in place of β on the right of β(t, p)
    ξ(t, a)  = α'(t, p) exp(w(a) + x(t, l)) β'(t+1, q) exp(-L)
    ∂L/∂f(s) = α'(T, s) exp(f(s) - L)

Of the automaton remain the states on some path from the start to a final state; c and π are constants.

Everything here takes one utterance. Where no path exists L is -inf, and all derivatives are 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seqtrain.errors import LabelError, NonFiniteScoresError, ShapeError
from seqtrain.fsa.automaton import Fsa

__all__ = [
    "BestPath",
    "CtcLoss",
    "ExpectedRisk",
    "FullSumGradients",
    "FullSumTangents",
    "LatticeGradients",
    "Path",
    "best_path",
    "ctc_loss",
    "enumerate_lattice_paths",
    "enumerate_paths",
    "expected_risk",
    "full_sum",
    "full_sum_gradients",
    "full_sum_tangents",
    "lattice_total_score",
    "leaky_full_sum_gradients",
    "posteriors",
]

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Path:
    """One path: `arcs` (T,), the `states` they enter (T,), their `labels` (T,), and its score."""

    score: float
    arcs: tuple[int, ...]
    states: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class BestPath:
    """The best path: `arcs`, `states` (entered) and `labels`, (T,) int64 each.

    Without a path all are -1, and the score is -inf.
    """

    score: float
    arcs: Indices
    states: Indices
    labels: Indices


@dataclass(frozen=True)
class FullSumGradients:
    """L, and its derivatives: `scores` (T, V), `weights` (A,), `final_weights` (F,) in the automaton's
    order."""

    score: float
    scores: Array
    weights: Array
    final_weights: Array


@dataclass(frozen=True)
class FullSumTangents:
    """`slope` of L in a direction, and the Hessian times that direction: `scores` (T, V), `weights` (A,),
    `final_weights` (F,)."""

    slope: float
    scores: Array
    weights: Array
    final_weights: Array


@dataclass(frozen=True)
class CtcLoss:
    """The loss -L >= 0 for normalised scores (inf without a path), and its `gradient` (T, V) with respect to
    the scores."""

    loss: float
    gradient: Array


def _checked_scores(scores: ArrayLike, highest_label: int) -> Array:
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2:
        raise ShapeError(f"scores must have the shape (T, V), got {table.shape}", argument="scores")
    bad = np.flatnonzero(~(table < np.inf).all(axis=1))
    if bad.size:
        raise NonFiniteScoresError(
            f"scores hold NaN or +inf at frame {bad[0]}", argument="scores", utterance=0, frame=int(bad[0])
        )
    if highest_label >= table.shape[1]:
        raise LabelError(
            f"label {highest_label} is outside the {table.shape[1]} columns of the scores",
            argument="scores",
            utterance=0,
            position=0,
            label=highest_label,
            num_labels=table.shape[1],
        )
    return table


@dataclass(frozen=True)
class _Automaton:
    """The parts of an Fsa, as the equations name them."""

    source: Indices
    destination: Indices
    label: Indices
    weight: Array
    start: int
    num_states: int
    final_states: Indices
    final_weights: Array
    final: Array
    """(S,) f(s), -inf where s isn't final."""


def _parts(fsa: Fsa) -> _Automaton:
    arcs = fsa.arcs.numpy().astype(np.int64)
    final_states = fsa.final_states.numpy().astype(np.int64)
    final_weights = fsa.final_weights.detach().cpu().numpy().astype(np.float64)
    final = np.full(fsa.num_states, -np.inf)
    final[final_states] = final_weights
    return _Automaton(
        source=arcs[:, 0],
        destination=arcs[:, 1],
        label=arcs[:, 2],
        weight=fsa.weights.detach().cpu().numpy().astype(np.float64),
        start=fsa.start,
        num_states=fsa.num_states,
        final_states=final_states,
        final_weights=final_weights,
        final=final,
    )


def _prepared(scores: ArrayLike, fsa: Fsa) -> tuple[Array, _Automaton]:
    g = _parts(fsa)
    return _checked_scores(scores, int(g.label.max(initial=-1))), g


def enumerate_paths(scores: ArrayLike, fsa: Fsa) -> Iterator[Path]:
    """Every path of exactly T arcs with a score above -inf, one by one: exponentially many, for small
    automata only.

    Args:
        scores: (T, V) natural-log scores, larger is better.
        fsa: the automaton.

    Raises:
        ShapeError, NonFiniteScoresError, LabelError: scores that aren't (T, V), hold NaN or +inf, or lack a
        label.
    """
    x, g = _prepared(scores, fsa)
    leaving: list[list[int]] = [[] for _ in range(g.num_states)]
    for arc, p in enumerate(g.source):
        leaving[p].append(arc)

    def extend(arcs: tuple[int, ...], state: int, score: float) -> Iterator[Path]:
        t = len(arcs)
        if t == x.shape[0]:
            if g.final[state] > -np.inf:
                path = list(arcs)
                yield Path(
                    score=score + float(g.final[state]),
                    arcs=arcs,
                    states=tuple(g.destination[path].tolist()),
                    labels=tuple(g.label[path].tolist()),
                )
            return
        for arc in leaving[state]:
            further = score + float(g.weight[arc]) + float(x[t, g.label[arc]])
            if further > -np.inf:
                yield from extend((*arcs, arc), int(g.destination[arc]), further)

    return extend((), g.start, 0.0)


def _forward(x: Array, g: _Automaton) -> Array:
    """α (T + 1, S)."""
    alpha = np.full((x.shape[0] + 1, g.num_states), -np.inf)
    alpha[0, g.start] = 0.0
    for t in range(x.shape[0]):
        np.logaddexp.at(alpha[t + 1], g.destination, alpha[t, g.source] + g.weight + x[t, g.label])
    return alpha


def _backward(x: Array, g: _Automaton) -> Array:
    """β (T + 1, S)."""
    beta = np.full((x.shape[0] + 1, g.num_states), -np.inf)
    beta[-1] = g.final
    for t in reversed(range(x.shape[0])):
        np.logaddexp.at(beta[t], g.source, g.weight + x[t, g.label] + beta[t + 1, g.destination])
    return beta


def full_sum(scores: ArrayLike, fsa: Fsa) -> float:
    """L, the log-sum of the scores of all paths; -inf without a path.

    Arguments and errors as in `enumerate_paths`.
    """
    x, g = _prepared(scores, fsa)
    return float(np.logaddexp.reduce(_forward(x, g)[-1] + g.final))


def full_sum_gradients(scores: ArrayLike, fsa: Fsa) -> FullSumGradients:
    """L and its derivatives with respect to scores, arc weights and final weights.

    Arguments and errors as in `enumerate_paths`.
    """
    x, g = _prepared(scores, fsa)
    alpha, beta = _forward(x, g), _backward(x, g)
    total = float(np.logaddexp.reduce(alpha[-1] + g.final))
    to_scores = np.zeros_like(x)
    to_weights = np.zeros_like(g.weight)
    to_final = np.zeros_like(g.final_weights)
    if total > -np.inf:
        for t in range(x.shape[0]):
            xi = np.exp(alpha[t, g.source] + g.weight + x[t, g.label] + beta[t + 1, g.destination] - total)
            np.add.at(to_scores[t], g.label, xi)
            to_weights += xi
        to_final = np.exp(alpha[-1, g.final_states] + g.final_weights - total)
    return FullSumGradients(score=total, scores=to_scores, weights=to_weights, final_weights=to_final)


def full_sum_tangents(
    scores: ArrayLike,
    fsa: Fsa,
    *,
    tangent_scores: ArrayLike | None = None,
    tangent_weights: ArrayLike | None = None,
    tangent_final_weights: ArrayLike | None = None,
) -> FullSumTangents:
    """Slope of L in the direction of the tangents, and the Hessian-vector product with it.

    Args:
        scores, fsa: as in `enumerate_paths`, which also says what is raised.
        tangent_scores: (T, V), zero unless given.
        tangent_weights: (A,), likewise.
        tangent_final_weights: (F,), likewise.
    """
    x, g = _prepared(scores, fsa)
    frames = x.shape[0]
    x_dot = np.zeros_like(x) if tangent_scores is None else np.asarray(tangent_scores, np.float64)
    w_dot = np.zeros_like(g.weight) if tangent_weights is None else np.asarray(tangent_weights, np.float64)
    f_dot = np.zeros(g.num_states)
    if tangent_final_weights is not None:
        f_dot[g.final_states] = np.asarray(tangent_final_weights, np.float64)
    alpha, beta = _forward(x, g), _backward(x, g)
    total = float(np.logaddexp.reduce(alpha[-1] + g.final))
    to_scores, to_weights = np.zeros_like(x), np.zeros_like(g.weight)
    if total == -np.inf:
        return FullSumTangents(0.0, to_scores, to_weights, np.zeros_like(g.final_weights))

    def share(part: Array, whole: Array) -> Array:
        """exp(part - whole), 0 where both are -inf."""
        return np.exp(part - np.where(whole > -np.inf, whole, 0.0))

    a_dot, b_dot = np.zeros_like(alpha), np.zeros_like(beta)
    b_dot[-1] = f_dot
    for t in range(frames):
        part = alpha[t, g.source] + g.weight + x[t, g.label]
        mean = a_dot[t, g.source] + w_dot + x_dot[t, g.label]
        np.add.at(a_dot[t + 1], g.destination, share(part, alpha[t + 1, g.destination]) * mean)
    for t in reversed(range(frames)):
        part = g.weight + x[t, g.label] + beta[t + 1, g.destination]
        mean = w_dot + x_dot[t, g.label] + b_dot[t + 1, g.destination]
        np.add.at(b_dot[t], g.source, share(part, beta[t, g.source]) * mean)
    ending = np.exp(alpha[-1] + g.final - total)
    slope = float(ending @ (a_dot[-1] + f_dot))
    for t in range(frames):
        xi = np.exp(alpha[t, g.source] + g.weight + x[t, g.label] + beta[t + 1, g.destination] - total)
        xi *= a_dot[t, g.source] + w_dot + x_dot[t, g.label] + b_dot[t + 1, g.destination] - slope
        np.add.at(to_scores[t], g.label, xi)
        to_weights += xi
    finals = (ending * (a_dot[-1] + f_dot - slope))[g.final_states]
    return FullSumTangents(slope, to_scores, to_weights, finals)


def _useful_states(g: _Automaton) -> NDArray[np.bool_]:
    """(S,) the states on some path from the start to a final state."""
    allowed = g.weight > -np.inf

    def closure(seeds: NDArray[np.bool_], begin: Indices, end: Indices) -> NDArray[np.bool_]:
        seen: NDArray[np.bool_] = seeds.copy()
        for _ in range(g.num_states):
            seen[end[allowed & seen[begin]]] = True
        return seen

    from_start = closure(np.arange(g.num_states) == g.start, g.source, g.destination)
    useful: NDArray[np.bool_] = from_start & closure(g.final > -np.inf, g.destination, g.source)
    return useful


def leaky_full_sum_gradients(
    scores: ArrayLike, fsa: Fsa, *, leak: float, distribution: ArrayLike
) -> FullSumGradients:
    """L of the leaky full sum, and its derivatives.

    Args:
        scores, fsa: as in `enumerate_paths`.
        leak: the coefficient c >= 0.
        distribution: (S,) π, not negative.

    Raises:
        As `enumerate_paths`.
    """
    x, g = _prepared(scores, fsa)
    useful = _useful_states(g)
    keep = useful[g.source] & useful[g.destination]
    weight = np.where(keep, g.weight, -np.inf)
    final = np.where(useful, g.final, -np.inf)
    with np.errstate(divide="ignore"):
        jump = np.log(leak * np.where(useful, np.asarray(distribution, dtype=np.float64), 0.0))
    frames = x.shape[0]

    def leaked(values: Array) -> Array:
        total: Array = np.logaddexp(values, jump + np.logaddexp.reduce(values))
        return total

    def leaked_back(values: Array) -> Array:
        total: Array = np.logaddexp(values, np.logaddexp.reduce(jump + values))
        return total

    alpha = np.full((frames + 1, g.num_states), -np.inf)  # α'
    alpha[0, g.start] = 0.0 if useful[g.start] else -np.inf
    alpha[0] = leaked(alpha[0])
    for t in range(frames):
        np.logaddexp.at(alpha[t + 1], g.destination, alpha[t, g.source] + weight + x[t, g.label])
        alpha[t + 1] = leaked(alpha[t + 1])
    beta = np.full((frames + 1, g.num_states), -np.inf)  # β'
    beta[-1] = leaked_back(final)
    for t in reversed(range(frames)):
        np.logaddexp.at(beta[t], g.source, weight + x[t, g.label] + beta[t + 1, g.destination])
        beta[t] = leaked_back(beta[t])

    total = float(np.logaddexp.reduce(alpha[-1] + final))
    to_scores, to_weights, to_final = np.zeros_like(x), np.zeros_like(weight), np.zeros_like(g.final_weights)
    if total > -np.inf:
        for t in range(frames):
            xi = np.exp(alpha[t, g.source] + weight + x[t, g.label] + beta[t + 1, g.destination] - total)
            np.add.at(to_scores[t], g.label, xi)
            to_weights += xi
        to_final = np.exp(alpha[-1, g.final_states] + final[g.final_states] - total)
    return FullSumGradients(score=total, scores=to_scores, weights=to_weights, final_weights=to_final)


def posteriors(scores: ArrayLike, fsa: Fsa) -> Array:
    """(T, V) probability of each label at each frame, given that one of the paths is taken; rows sum to one.

    Without a path all are 0. Arguments and errors as in `enumerate_paths`.
    """
    return full_sum_gradients(scores, fsa).scores


def best_path(scores: ArrayLike, fsa: Fsa) -> BestPath:
    """The path of the highest score; ties as the module's description says.

    Arguments and errors as in `enumerate_paths`.
    """
    x, g = _prepared(scores, fsa)
    frames = x.shape[0]
    best = np.full(g.num_states, -np.inf)
    best[g.start] = 0.0
    into = np.full((frames, g.num_states), -1, dtype=np.int64)
    for t in range(frames):
        candidates = best[g.source] + g.weight + x[t, g.label]
        best = np.full(g.num_states, -np.inf)
        for arc, candidate in enumerate(candidates):
            q = g.destination[arc]
            if candidate > best[q]:
                best[q], into[t, q] = candidate, arc
    ending = best + g.final
    state = int(np.argmax(ending))  # the first of equals
    arcs = np.full(frames, -1, dtype=np.int64)
    score = float(ending[state])
    if score == -np.inf:
        return BestPath(score=score, arcs=arcs, states=arcs.copy(), labels=arcs.copy())
    for t in reversed(range(frames)):
        arcs[t] = into[t, state]
        state = int(g.source[arcs[t]])
    return BestPath(score=score, arcs=arcs, states=g.destination[arcs], labels=g.label[arcs])


def ctc_loss(
    scores: ArrayLike, targets: Sequence[int] | Indices, *, blank: int = 0, normalize: bool = False
) -> CtcLoss:
    """CTC by its own recursion, independent of the automaton that `seqtrain.fsa.ctc` builds.

    Args:
        scores: (T, V) natural-log scores; with `normalize` logits, to which log-softmax is applied.
        targets: (U,) labels.
        blank: column of the blank.
        normalize: apply log-softmax; the gradient is with respect to what was passed.

    Raises:
        ShapeError, NonFiniteScoresError, LabelError: as in `enumerate_paths`; also for the blank among the
        targets.
    """
    labels = [int(label) for label in targets]
    x = _checked_scores(scores, max([blank, *labels]))
    for position, label in enumerate(labels):
        if label == blank or label < 0:
            raise LabelError(
                f"targets: position {position} holds {label}, "
                + ("the blank" if label == blank else "which is negative"),
                argument="targets",
                utterance=0,
                position=position,
                label=label,
                num_labels=x.shape[1],
            )
    frames = x.shape[0]
    y = x
    if normalize:
        row_sum = np.logaddexp.reduce(x, axis=1, keepdims=True)
        y = x - np.where(row_sum > -np.inf, row_sum, 0.0)  # a frame of nothing but -inf stays as it is

    extended = np.full(2 * len(labels) + 1, blank)
    extended[1::2] = labels
    states = extended.size
    may_skip = np.zeros(states, dtype=bool)
    may_skip[2:] = (extended[2:] != blank) & (extended[2:] != extended[:-2])

    def entering(before: Array) -> Array:
        """⊕ over the states from which each state is entered."""
        total: Array = before.copy()
        total[1:] = np.logaddexp(total[1:], before[:-1])
        total[2:] = np.where(may_skip[2:], np.logaddexp(total[2:], before[:-2]), total[2:])
        return total

    def leaving(after: Array) -> Array:
        """⊕ over the states that each state leads to."""
        total: Array = after.copy()
        total[:-1] = np.logaddexp(total[:-1], after[1:])
        total[:-2] = np.where(may_skip[2:], np.logaddexp(total[:-2], after[2:]), total[:-2])
        return total

    if frames == 0:
        return CtcLoss(loss=np.inf if labels else 0.0, gradient=np.zeros_like(x))
    alpha = np.full((frames, states), -np.inf)
    alpha[0, :2] = y[0, extended[:2]]
    for t in range(1, frames):
        alpha[t] = entering(alpha[t - 1]) + y[t, extended]
    beta = np.full((frames, states), -np.inf)  # without the score of frame t
    beta[-1, -2:] = 0.0
    for t in reversed(range(frames - 1)):
        beta[t] = leaving(beta[t + 1] + y[t + 1, extended])

    total = float(np.logaddexp.reduce(alpha[-1, -2:]))
    if total == -np.inf:
        return CtcLoss(loss=np.inf, gradient=np.zeros_like(x))
    occupancy = np.exp(alpha + beta - total)
    gamma = np.zeros_like(x)
    for s, label in enumerate(extended):
        gamma[:, label] += occupancy[:, s]
    gradient = np.exp(y) * gamma.sum(axis=1, keepdims=True) - gamma if normalize else -gamma
    return CtcLoss(loss=-total, gradient=gradient)


@dataclass(frozen=True)
class LatticeGradients:
    """L of a lattice, and its derivatives: `weights` (A,) (the posteriors of the arcs), `final_weights` (F,)."""

    score: float
    weights: Array
    final_weights: Array


def lattice_total_score(fsa: Fsa) -> LatticeGradients:
    """The sum over all paths, of any length, of an acyclic automaton with state 0 as start and source < destination."""
    g = _parts(fsa)
    order = np.argsort(g.source, kind="stable")
    alpha = np.full(g.num_states, -np.inf)
    alpha[g.start] = 0.0
    for a in order:
        alpha[g.destination[a]] = np.logaddexp(alpha[g.destination[a]], alpha[g.source[a]] + g.weight[a])
    beta = g.final.copy()
    for a in order[::-1]:
        beta[g.source[a]] = np.logaddexp(beta[g.source[a]], g.weight[a] + beta[g.destination[a]])
    total = float(np.logaddexp.reduce(alpha + g.final))
    if total == -np.inf:
        return LatticeGradients(total, np.zeros_like(g.weight), np.zeros_like(g.final_weights))
    return LatticeGradients(
        score=total,
        weights=np.exp(alpha[g.source] + g.weight + beta[g.destination] - total),
        final_weights=np.exp(alpha[g.final_states] + g.final_weights - total),
    )


@dataclass(frozen=True)
class ExpectedRisk:
    """E and L of a lattice, and E's derivatives in the automaton's order: `weights` and `risks` (A,), `final_weights`
    and `final_risks` (F,). The derivatives of L with respect to weights are `risks` and `final_risks`."""

    risk: float
    total: float
    weights: Array
    risks: Array
    final_weights: Array
    final_risks: Array


def enumerate_lattice_paths(lattice: Fsa) -> Iterator[tuple[float, tuple[int, ...], int]]:
    """Every path of an acyclic automaton with a score above -inf: its score, its arcs, and the position of its final
    state. Exponentially many."""
    g = _parts(lattice)

    def extend(
        arcs: tuple[int, ...], state: int, score: float
    ) -> Iterator[tuple[float, tuple[int, ...], int]]:
        for item in np.flatnonzero((g.final_states == state) & (g.final_weights > -np.inf)):
            yield score + float(g.final_weights[item]), arcs, int(item)
        for arc in np.flatnonzero((g.source == state) & (g.weight > -np.inf)):
            yield from extend((*arcs, int(arc)), int(g.destination[arc]), score + float(g.weight[arc]))

    return extend((), g.start, 0.0)


def expected_risk(lattice: Fsa, risks: ArrayLike, final_risks: ArrayLike | None = None) -> ExpectedRisk:
    """Expected risk of a lattice whose arcs lead from lower to higher states.

    Without a path E is 0, L is -inf, and all derivatives are 0.

    Args:
        lattice: the weights are log weights.
        risks: (A,) of the arcs.
        final_risks: (F,) of the final states; None: 0.

    Raises:
        ShapeError: the risks aren't as many as the arcs.
    """
    g = _parts(lattice)
    r = np.asarray(risks, dtype=np.float64)
    r_final = (
        np.zeros(g.final_states.size) if final_risks is None else np.asarray(final_risks, dtype=np.float64)
    )
    if r.shape != g.weight.shape or r_final.shape != g.final_weights.shape:
        raise ShapeError(f"risks must have the shape {g.weight.shape}, got {r.shape}", argument="risks")
    beta, sigma = np.full(g.num_states, -np.inf), np.zeros(g.num_states)
    alpha, rho = beta.copy(), sigma.copy()
    alpha[g.start] = 0.0

    def pair(scores: Array, values: Array) -> tuple[float, float]:
        log_sum = float(np.logaddexp.reduce(scores, initial=-np.inf))
        return log_sum, 0.0 if log_sum == -np.inf else float(np.exp(scores - log_sum) @ values)

    for state in reversed(range(g.num_states)):
        arcs, ends = np.flatnonzero(g.source == state), np.flatnonzero(g.final_states == state)
        onward = g.destination[arcs]
        scores = np.concatenate((g.weight[arcs] + beta[onward], g.final_weights[ends]))
        beta[state], sigma[state] = pair(scores, np.concatenate((r[arcs] + sigma[onward], r_final[ends])))
    for state in range(g.num_states):
        arcs = np.flatnonzero(g.destination == state)
        if state != g.start:
            before = g.source[arcs]
            alpha[state], rho[state] = pair(alpha[before] + g.weight[arcs], rho[before] + r[arcs])
    total, risk = float(beta[g.start]), float(sigma[g.start])
    if total == -np.inf:
        none, none_final = np.zeros_like(r), np.zeros_like(r_final)
        return ExpectedRisk(0.0, total, none, none, none_final, none_final)
    xi = np.exp(alpha[g.source] + g.weight + beta[g.destination] - total)
    xi_final = np.exp(alpha[g.final_states] + g.final_weights - total)
    return ExpectedRisk(
        risk=risk,
        total=total,
        weights=xi * (rho[g.source] + r + sigma[g.destination] - risk),
        risks=xi,
        final_weights=xi_final * (rho[g.final_states] + r_final - risk),
        final_risks=xi_final,
    )
