"""Transition weights of hidden Markov model states (time distortion penalties, as log weights)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from seqtrain.errors import ArgumentError

__all__ = ["Silence", "Transitions"]


def _check(name: str, weight: float) -> None:
    if not weight < math.inf:
        raise ArgumentError(f"{name} must be a log weight, finite or -inf, got {weight}", argument=name)


def _check_probability(name: str, probability: float) -> None:
    if not 0.0 <= probability <= 1.0:
        raise ArgumentError(f"{name} must be a probability in [0, 1], got {probability}", argument=name)


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0.0 else -math.inf


@dataclass(frozen=True)
class Transitions:
    """What each state of a kind pays, as natural-log weights.

    A state pays `loop` for every frame after its first, and on leaving `forward`, or `skip` when the state
    after it is jumped over. Leaving at the end of the utterance is leaving, too: it is paid by the final
    weight. Entering costs nothing, so the first frame of an utterance pays no transition. Where loop and
    forward are the logs of probabilities that sum to one, and there is no skip, the weights of all paths of
    all lengths sum to one.

    A skip never leaves a pronunciation: its first and its last state are always visited.

    Attributes:
        loop: weight of one more frame in the same state; -inf: no loops.
        forward: weight of leaving for the next state.
        skip: weight of leaving for the state after the next one; -inf (the default): no skips.
    """

    loop: float = 0.0
    forward: float = 0.0
    skip: float = -math.inf

    def __post_init__(self) -> None:
        for name in ("loop", "forward", "skip"):
            _check(name, getattr(self, name))

    @classmethod
    def from_probabilities(cls, *, loop: float, skip: float = 0.0) -> Transitions:
        """Normalised weights: forward gets 1 - loop - skip.

        Raises:
            ArgumentError: a probability outside [0, 1], or loop + skip above 1.
        """
        _check_probability("loop", loop)
        _check_probability("skip", skip)
        if loop + skip > 1.0:
            raise ArgumentError(f"loop + skip must not exceed 1, got {loop} + {skip}", argument="skip")
        return cls(loop=_log(loop), forward=_log(1.0 - loop - skip), skip=_log(skip))


@dataclass(frozen=True)
class Silence:
    """Optional silence before, between and after words: the chain of its states and what the choice costs.

    At each place the path pays `present` and walks through the states of silence, or pays `absent` and goes
    on.

    Attributes:
        columns: columns of the scores of the silence states, in order.
        transitions: what these states pay.
        present, absent: log weights of the choice between two words.
        edge_present, edge_absent: log weights of the choice before the first and after the last word (and,
            without any word, of the only choice); None means as between words.
    """

    columns: tuple[int, ...]
    transitions: Transitions = Transitions()
    present: float = 0.0
    absent: float = 0.0
    edge_present: float | None = None
    edge_absent: float | None = None

    def __post_init__(self) -> None:
        if not self.columns or min(self.columns) < 0:
            raise ArgumentError(
                f"columns must be the silence's columns of the scores, got {self.columns}", argument="columns"
            )
        for name in ("present", "absent", "edge_present", "edge_absent"):
            value = getattr(self, name)
            if value is not None:
                _check(name, value)

    @classmethod
    def from_probabilities(
        cls,
        columns: tuple[int, ...],
        *,
        probability: float,
        edge_probability: float | None = None,
        transitions: Transitions = Transitions(),  # frozen, so that one shared default is safe
    ) -> Silence:
        """Silence between words with `probability`, at the edges with `edge_probability` (None: the same).

        Raises:
            ArgumentError: a probability outside [0, 1].
        """
        edge = probability if edge_probability is None else edge_probability
        _check_probability("probability", probability)
        _check_probability("edge_probability", edge)
        return cls(
            columns=columns,
            transitions=transitions,
            present=_log(probability),
            absent=_log(1.0 - probability),
            edge_present=_log(edge),
            edge_absent=_log(1.0 - edge),
        )

    def choice(self, *, edge: bool) -> tuple[float, float]:
        """The log weights (present, absent) at an edge of the utterance, or between words."""
        if not edge:
            return self.present, self.absent
        return (
            self.present if self.edge_present is None else self.edge_present,
            self.absent if self.edge_absent is None else self.edge_absent,
        )
