"""One weighted finite-state acceptor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from seqtrain.errors import FsaError
from seqtrain.fsa._arrays import Floats, Integers, int32_array, integer_array, match_dtype, weight_tensor
from seqtrain.fsa.min_length import min_length
from seqtrain.fsa.validate import check_automata

__all__ = ["Finals", "Fsa"]

Finals: TypeAlias = "Mapping[int, float] | tuple[Integers, Floats]"


def _final_arrays(final: Finals) -> tuple[NDArray[np.int32], Floats]:
    """The states and the weights of `final`."""
    if isinstance(final, Mapping):
        states: Integers = list(final.keys())
        weights: Floats = np.array([float(weight) for weight in final.values()], dtype=np.float64)
    else:
        states, weights = final
    return int32_array(integer_array(states, argument="final", shape=(None,)), argument="final"), weights


class Fsa:
    """A weighted acceptor over the columns of the scores: every arc consumes one frame, there is no epsilon.

    The weight of a path is the sum of its arcs' weights and its last state's final weight; with scores s(t,
    label) its score is that sum plus Σ_t s(t, label of the arc taken at frame t).

    Args:
        arcs: (A, 3) integers, rows `[source, destination, label]`; a label is a column of the scores (>= 0).
            Any order, which is kept: an arc's number is its row. Loops and parallel arcs are fine.
        weights: (A,) natural-log weights, larger is better; None means 0. -inf forbids an arc. A float32 or
            float64 tensor is kept as the same object, so that gradients reach it.
        num_states: states are 0 … num_states - 1; None means one more than the highest number that occurs.
        start: the start state.
        final: `{state: log weight}`, or a pair of arrays `(states (F,), log weights (F,))` whose weights may
            require grad; None means `{num_states - 1: 0}`. `{}` accepts nothing.

    Attributes:
        arcs: (A, 3) int32 CPU tensor. A copy: don't write to it, it has been checked.
        weights: (A,) float32 or float64 tensor.
        num_states: int.
        start: int.
        final_states: (F,) int32 CPU tensor, in the order given.
        final_weights: (F,) tensor of the dtype of `weights`.

    Raises:
        FsaError: a state outside the graph, a negative label, a weight that is NaN or +inf, a final state
        given twice. ShapeError, DtypeError: an argument isn't of the shape or kind above.
    """

    __slots__ = ("arcs", "derived", "final_states", "final_weights", "num_states", "start", "weights")

    arcs: torch.Tensor
    weights: torch.Tensor
    num_states: int
    start: int
    final_states: torch.Tensor
    final_weights: torch.Tensor
    derived: dict[str, Any]
    """What was computed from the structure (not the weights); shared by batches of just this automaton, not
    pickled."""

    def __init__(
        self,
        arcs: Integers,
        weights: Floats | None = None,
        *,
        num_states: int | None = None,
        start: int = 0,
        final: Finals | None = None,
    ) -> None:
        arc_array = int32_array(integer_array(arcs, argument="arcs", shape=(None, 3)), argument="arcs")
        weight = weight_tensor(
            np.zeros(arc_array.shape[0], dtype=np.float32) if weights is None else weights,
            argument="weights",
            size=arc_array.shape[0],
        )
        finals = None if final is None else _final_arrays(final)
        if num_states is None:
            mentioned = np.concatenate(
                (arc_array[:, :2].ravel(), [] if finals is None else finals[0], [start, 0])
            )
            num_states = int(mentioned.max()) + 1
        if not 0 <= num_states <= np.iinfo(np.int32).max:
            raise FsaError(f"num_states is {num_states}, outside 1…{np.iinfo(np.int32).max}")
        if not 0 <= start < max(num_states, 1):
            raise FsaError(
                f"the start state {start} is outside the {num_states} states 0…{num_states - 1}", state=start
            )
        final_states, final_values = ([num_states - 1], [0.0]) if finals is None else finals
        final_weights = weight_tensor(final_values, argument="final", size=len(final_states))
        self._set(
            torch.from_numpy(arc_array),
            weight,
            num_states,
            start,
            torch.from_numpy(np.asarray(final_states, dtype=np.int32)),
            match_dtype(final_weights, weight, argument="final"),
        )
        check_automata(**self._flat(), single=True)

    def _set(
        self,
        arcs: torch.Tensor,
        weights: torch.Tensor,
        num_states: int,
        start: int,
        final_states: torch.Tensor,
        final_weights: torch.Tensor,
    ) -> None:
        self.arcs = arcs
        self.weights = weights
        self.num_states = num_states
        self.start = start
        self.final_states = final_states
        self.final_weights = final_weights
        self.derived = {}

    @classmethod
    def _from_checked(cls, *parts: Any) -> Fsa:
        """An automaton from parts that have been checked before, in the order of `_set`."""
        fsa = cls.__new__(cls)
        fsa._set(*parts)
        return fsa

    def _flat(self) -> dict[str, Any]:
        """The numpy arrays of this automaton as a flat batch of one."""
        return {
            "arcs": self.arcs.numpy(),
            "weights": self.weights.detach().cpu().numpy(),
            "final_states": self.final_states.numpy(),
            "final_weights": self.final_weights.detach().cpu().numpy(),
            "starts": np.array([self.start], dtype=np.int32),
            "num_states": np.array([self.num_states], dtype=np.int32),
            "arc_offsets": np.array([0, self.arcs.shape[0]], dtype=np.int64),
            "final_offsets": np.array([0, self.final_states.shape[0]], dtype=np.int64),
        }

    @property
    def num_arcs(self) -> int:
        return self.arcs.shape[0]

    def min_length(self) -> int:
        """Fewest frames the automaton accepts, -1 if it accepts nothing; arcs of weight -inf don't count."""
        return int(min_length(**self._flat())[0])

    def equal(self, other: Fsa) -> bool:
        """Whether both have the same states, the same arcs in the same order, and bit-equal weights."""
        return (
            self.num_states == other.num_states
            and self.start == other.start
            and torch.equal(self.arcs, other.arcs)
            and torch.equal(self.final_states, other.final_states)
            and self.weights.dtype == other.weights.dtype
            and torch.equal(self.weights, other.weights)
            and torch.equal(self.final_weights, other.final_weights)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.arcs, self.weights, self.num_states, self.start, self.final_states, self.final_weights)
        return Fsa._from_checked, parts

    def __repr__(self) -> str:
        return (
            f"Fsa(states={self.num_states}, arcs={self.num_arcs}, start={self.start}, "
            f"finals={self.final_states.shape[0]}, dtype={self.weights.dtype})"
        )
