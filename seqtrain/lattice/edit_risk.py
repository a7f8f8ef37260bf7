"""The exact edit distance of every path of a lattice, as risks of a lattice with more states.

The edit distance of a path isn't a sum over its arcs: it is a minimum over alignments with the reference. But it is a
sum once a state also knows the last row of the distance's table, d(i, ·) (`seqtrain.losses.edit_distance`), for what
the path has said so far. A row is its differences d(i, j) - d(i, 0), of which neighbours differ by at most 1, so many
histories share a state. An arc that says a token adds d(i, 0) - d(i - 1, 0) = 1, the end adds d(i, R) - d(i, 0). That
is the lattice composed with the deterministic automaton of the distance (K. Schulz, S. Mihov: Fast String Correction
with Levenshtein Automata, IJDAR 2002), built as far as the lattice needs it. Paths and their scores stay as they are.
The number of states may grow exponentially with the reference's length where a lattice is wide everywhere: hence the
limit. What approximates the distance without growth is `overlap_accuracy`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from seqtrain.errors import ArgumentError, LatticeSizeError, ShapeError
from seqtrain.lattice.lattice import Lattice
from seqtrain.lattice.total_score import check_on_host
from seqtrain.scores import host_integers

__all__ = ["EditRisk", "edit_risk"]


class EditRisk(NamedTuple):
    """A lattice of the same paths whose arcs and final states sum to the paths' edit distances.

    Attributes:
        lattice: gradients flow through its weights to those of the original.
        risks: (ΣA',) float64 of the arcs.
        final_risks: (ΣF',) float64 of the final states.
        source_arcs: (ΣA',) int64 arc of the original lattice (a row of its `arcs`) that each arc is a copy of.
    """

    lattice: Lattice
    risks: torch.Tensor
    final_risks: torch.Tensor
    source_arcs: torch.Tensor


class _Rows:
    """Rows d(i, ·) - d(i, 0) of one reference, each met once; row 0 is that of the empty hypothesis."""

    def __init__(self, reference: list[int]) -> None:
        self._reference = reference
        self._number: dict[tuple[int, ...], int] = {}
        self._rows: list[tuple[int, ...]] = []
        self._next: dict[tuple[int, int], int] = {}
        self._intern(tuple(range(len(reference) + 1)))

    def _intern(self, row: tuple[int, ...]) -> int:
        number = self._number.setdefault(row, len(self._rows))
        if number == len(self._rows):
            self._rows.append(row)
        return number

    def after(self, number: int, token: int) -> int:
        """The row when one more token has been said."""
        found = self._next.get((number, token))
        if found is None:
            row, new = self._rows[number], [0]
            for j, wanted in enumerate(self._reference, start=1):
                # d(i, 0) rises by one with the token, so all but the move along the row lose one.
                new.append(min(row[j - 1] + (token != wanted) - 1, row[j], new[-1] + 1))
            found = self._next[number, token] = self._intern(tuple(new))
        return found

    def distance(self, number: int) -> int:
        """d(i, R) - d(i, 0)."""
        return self._rows[number][-1]


class _Expanded(NamedTuple):
    arcs: list[tuple[int, int, int]]
    """Source, destination, arc of the original."""
    said: list[int]
    states: list[int]
    """State of the original that each is a copy of."""
    finals: list[tuple[int, int, int]]
    """State, final item of the original, risk."""


_NOTHING_YET = -1


def edit_risk(
    lattice: Lattice,
    references: torch.Tensor,
    reference_lengths: torch.Tensor,
    *,
    tokens: torch.Tensor | None = None,
    blank: int | None = None,
    max_states: int = 1_000_000,
) -> EditRisk:
    """Expands the lattice until each path has its exact edit distance to the reference.

    Args:
        references: (B, R) int tokens, padded with anything.
        reference_lengths: (B,) int.
        tokens: (ΣA,) int, what each arc says, -1 for nothing (epsilon, silence, a frame inside a word): such as
            `lattice.aux`. None: its label.
        blank: the arcs' labels are frames of CTC: a run of the same label is said once, this one not at all. Excludes
            `tokens`.
        max_states: of one utterance's expanded lattice.

    Raises:
        LatticeSizeError: an utterance needs more states. ArgumentError, ShapeError, DtypeError, DeviceError.
    """
    check_on_host(lattice)
    batch = len(lattice)
    references = host_integers(references, "references", (batch, None))
    counts = host_integers(reference_lengths, "reference_lengths", (batch,)).tolist()
    if tokens is not None and blank is not None:
        raise ArgumentError("tokens and blank exclude each other", argument="blank")
    if max_states < 1:
        raise ArgumentError(f"max_states must be at least 1, got {max_states}", argument="max_states")
    bad = [b for b, count in enumerate(counts) if not 0 <= count <= references.shape[1]]
    if bad:
        raise ShapeError(
            f"reference_lengths[{bad[0]}] = {counts[bad[0]]} must lie in 0 … {references.shape[1]}, the columns of "
            "references",
            argument="reference_lengths",
        )
    labels = lattice.arcs[:, 2] if tokens is None else host_integers(tokens, "tokens", lattice.weights.shape)
    offsets = {kind: getattr(lattice, f"{kind}_offsets").tolist() for kind in ("arc", "state", "final")}
    expanded: list[_Expanded] = []
    for b in range(batch):
        arcs = slice(*offsets["arc"][b : b + 2])
        finals = lattice.final_states[slice(*offsets["final"][b : b + 2])].tolist()
        states = offsets["state"][b + 1] - offsets["state"][b]
        ends = lattice.arcs[arcs, :2].tolist()
        rows = _Rows(references[b, : counts[b]].tolist())
        name = f"utterance {b}" + ("" if lattice.tags is None else f" ({lattice.tags[b]})")
        expanded.append(
            _expand(states, ends, labels[arcs].tolist(), finals, rows, blank, max_states, b, name)
        )
    return _joined(lattice, expanded, offsets)


def _expand(
    states: int, ends: list[list[int]], labels: list[int], finals: list[int], rows: _Rows, blank: int | None,
    limit: int, utterance: int, name: str,
) -> _Expanded:  # fmt: skip
    # What a state's copies remember: a row and, of CTC, the label of the frame before. They stand in order of first
    # arrival; sources below destinations make all arrivals at p known when p's turn comes.
    known: list[dict[tuple[int, int], int]] = [{} for _ in range(states)]
    if states:
        known[0][0, _NOTHING_YET] = 0
    found, said, total, arc = [], list[int](), 1, 0
    for p in range(states):
        end = arc
        while end < len(ends) and ends[end][0] == p:
            end += 1
        for (row, last), copy in known[p].items():
            for a in range(arc, end):
                q, label = ends[a][1], labels[a]
                speaks = label >= 0 if blank is None else label not in (blank, last)
                new_row = rows.after(row, label) if speaks else row
                memory = (new_row, _NOTHING_YET if blank is None else label)
                target = known[q].setdefault(memory, len(known[q]))
                total += target + 1 == len(known[q])
                found.append((p, copy, q, target, a))
                said.append(int(speaks))
            if total > limit:
                raise LatticeSizeError(
                    f"{name}: its lattice of {states} states needs more than {limit} (max_states) to tell the edit "
                    "distance of each path: prune it, raise max_states, or take the approximation overlap_accuracy",
                    utterance=utterance, limit=limit,
                )  # fmt: skip
        arc = end
    first = np.concatenate(([0], np.cumsum([len(copies) for copies in known], dtype=np.int64))).tolist()
    return _Expanded(
        arcs=[(first[p] + i, first[q] + j, a) for p, i, q, j, a in found],
        said=said,
        states=[p for p in range(states) for _ in known[p]],
        finals=[
            (first[q] + copy, item, rows.distance(row))
            for item, q in enumerate(finals)
            for (row, _), copy in known[q].items()
        ],
    )


def _joined(lattice: Lattice, expanded: list[_Expanded], offsets: dict[str, list[int]]) -> EditRisk:
    def flat(columns: list[list[tuple[int, int, int]]], shifted: int, kind: str) -> NDArray[np.int64]:
        """(N, 3), the column `shifted` counted through the batch."""
        arrays = [np.array(column, dtype=np.int64).reshape(-1, 3) for column in columns]
        for array, shift in zip(arrays, offsets[kind], strict=False):
            array[:, shifted] += shift
        return np.concatenate([np.zeros((0, 3), dtype=np.int64), *arrays])

    def starts(sizes: list[int]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))))

    arcs = flat([e.arcs for e in expanded], 2, "arc")
    finals = flat([e.finals for e in expanded], 1, "final")
    states = [p + shift for e, shift in zip(expanded, offsets["state"], strict=False) for p in e.states]
    of_arc, of_final = torch.from_numpy(arcs[:, 2].copy()), torch.from_numpy(finals[:, 1].copy())
    ends = torch.from_numpy(arcs[:, :2].astype(np.int32))
    parts = lattice._parts()
    for name in ("weights", "acoustic", "graph", "aux", "graph_arcs"):
        tensor = parts[name]
        parts[name] = None if tensor is None else tensor.index_select(0, of_arc)
    parts |= {
        "arcs": torch.cat([ends, lattice.arcs[of_arc, 2:]], dim=1),
        "frames": lattice.frames[torch.tensor(states, dtype=torch.int64)],
        "final_states": torch.from_numpy(finals[:, 0].astype(np.int32)),
        "final_weights": lattice.final_weights.index_select(0, of_final),
        "arc_offsets": starts([len(e.arcs) for e in expanded]),
        "state_offsets": starts([len(e.states) for e in expanded]),
        "final_offsets": starts([len(e.finals) for e in expanded]),
    }
    return EditRisk(
        Lattice._from_checked(parts, lattice.tags),
        torch.tensor([s for e in expanded for s in e.said], dtype=torch.float64),
        torch.from_numpy(finals[:, 2].astype(np.float64)),
        of_arc,
    )
