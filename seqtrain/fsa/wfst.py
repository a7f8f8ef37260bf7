"""A weighted transducer with epsilons, as OpenFst has them: what graphs are before they are automata over columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import ArgumentError, FsaError
from seqtrain.fsa.automaton import Fsa

__all__ = ["EPSILON", "Wfst"]

EPSILON = 0


@dataclass(frozen=True)
class Wfst:
    """Arcs with an input and an output label, 0 for epsilon, and natural-log weights, larger is better.

    An acceptor has the same labels on both sides. A label that isn't epsilon is a column of the scores plus one, unless
    `label_offset` says otherwise where a `Wfst` and an `Fsa` meet.

    Attributes:
        arcs: (A, 4) int64, rows `[source, destination, input label, output label]`.
        weights: (A,) float64 log weights; -inf forbids an arc.
        num_states: at least 1.
        start: a state.
        final_states: (F,) int64, rising.
        final_weights: (F,) float64 log weights.
        input_symbols, output_symbols: names of labels, or None.

    Raises:
        FsaError: a state outside the graph, a negative label, a weight that is NaN or +inf.
    """

    arcs: NDArray[np.int64]
    weights: NDArray[np.float64]
    num_states: int
    start: int
    final_states: NDArray[np.int64]
    final_weights: NDArray[np.float64]
    input_symbols: Mapping[int, str] | None = None
    output_symbols: Mapping[int, str] | None = None

    def __post_init__(self) -> None:
        # An automaton over the labels as they are has all of the checks but the output labels'.
        Fsa(
            self.arcs[:, :3], self.weights, num_states=self.num_states, start=self.start,
            final=(self.final_states, self.final_weights),
        )  # fmt: skip
        negative = np.flatnonzero(self.arcs[:, 3] < 0)
        if negative.size:
            arc = int(negative[0])
            raise FsaError(
                f"arc {arc} ({self.arcs[arc, 0]} → {self.arcs[arc, 1]}): the output label {self.arcs[arc, 3]} is "
                "negative",
                arc=arc,
            )

    @property
    def num_arcs(self) -> int:
        return len(self.arcs)

    @property
    def is_acceptor(self) -> bool:
        """Whether input and output label of every arc are the same."""
        return bool((self.arcs[:, 2] == self.arcs[:, 3]).all())

    @property
    def has_epsilons(self) -> bool:
        """Whether an arc has epsilon as its input label."""
        return bool((self.arcs[:, 2] == EPSILON).any())

    @classmethod
    def from_fsa(
        cls,
        fsa: Fsa,
        *,
        label_offset: int = 1,
        output_labels: Any = None,
        symbols: Mapping[int, str] | None = None,
        output_symbols: Mapping[int, str] | None = None,
    ) -> Wfst:
        """The automaton as an acceptor, or with output labels (A,), 0 for none, as a transducer.

        Raises:
            ArgumentError: a label_offset other than 0 and 1. ValueError of numpy where output_labels aren't (A,).
        """
        _check_offset(label_offset)
        arcs = fsa.arcs.numpy().astype(np.int64)
        labels = arcs[:, 2] + label_offset
        outputs = labels if output_labels is None else np.asarray(output_labels, dtype=np.int64)
        order = np.argsort(fsa.final_states.numpy(), kind="stable")
        return cls(
            np.column_stack((arcs[:, :2], labels, outputs)),
            fsa.weights.detach().cpu().numpy().astype(np.float64),
            fsa.num_states,
            fsa.start,
            fsa.final_states.numpy().astype(np.int64)[order],
            fsa.final_weights.detach().cpu().numpy().astype(np.float64)[order],
            symbols,
            symbols if output_labels is None else output_symbols,
        )

    def to_fsa(self, *, label_offset: int = 1, dtype: Any = np.float32) -> Fsa:
        """The automaton that accepts the input labels; output labels are dropped.

        Raises:
            FsaError: names an arc with an epsilon: it would consume no frame (`remove_epsilon` first).
            ArgumentError: a label_offset other than 0 and 1.
        """
        _check_offset(label_offset)
        labels = self.arcs[:, 2] - label_offset
        silent = np.flatnonzero(labels < 0)
        if silent.size:
            arc = int(silent[0])
            raise FsaError(
                f"arc {arc} ({self.arcs[arc, 0]} → {self.arcs[arc, 1]}) has an epsilon, which consumes no frame: "
                "remove_epsilon first",
                arc=arc,
            )
        return Fsa(
            np.column_stack((self.arcs[:, :2], labels)),
            self.weights.astype(dtype),
            num_states=self.num_states,
            start=self.start,
            final=(self.final_states, self.final_weights),
        )


def _check_offset(label_offset: int) -> None:
    if label_offset not in (0, 1):
        raise ArgumentError(
            f"label_offset must be 1 (0 is epsilon) or 0 (no epsilon), got {label_offset}",
            argument="label_offset",
        )
