"""The lattices of a batch as flat tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seqtrain.errors import DeviceError, FsaError, ShapeError
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.fsa._arrays import Floats, Integers, int32_array, integer_array, match_dtype, weight_tensor
from seqtrain.fsa.validate import check_weights
from seqtrain.lattice.validate import check_lattice

__all__ = ["Lattice"]

_TENSORS = (
    "arcs", "weights", "acoustic", "graph", "frames", "final_states", "final_weights", "arc_offsets",
    "state_offsets", "final_offsets", "lengths", "truncated",
)  # fmt: skip
_OPTIONAL = ("aux", "graph_arcs")


class Lattice:
    """Acyclic graphs of a batch of B utterances, whose states stand at frames; `lattice[b]` is that of utterance b.

    State numbers are local to each utterance and topologically sorted; state 0 is the start. Arcs of utterance b are
    the rows `arc_offsets[b]` … `arc_offsets[b + 1]`, sorted by source; its states the items `state_offsets[b]` …
    `state_offsets[b + 1]`; final states likewise. An utterance without any path has no states. The score of a path is
    the sum of its arcs' weights and of its last state's final weight (natural log, larger is better).

    Attributes:
        arcs: (ΣA, 3) int32, rows `[source, destination, label]`, source < destination, label >= 0.
        weights: (ΣA,) float32 or float64 log weights, `acoustic` + `graph` unless scaled (`lattice.rescore`); -inf
            forbids an arc; may require grad.
        acoustic: (ΣA,) the part that comes from the scores; with gradient to them where they have one.
        graph: (ΣA,) the part that comes from the graph (language model, transitions, lexicon).
        aux: (ΣA,) int32 auxiliary labels, such as words; -1 where an arc has none. None: no arc has one.
        graph_arcs: (ΣA,) int64 arc of the graph that an arc is an instance of; None where that isn't known.
        frames: (ΣS,) int32 frame at which a state stands: that many frames lie before it.
        final_states: (ΣF,) int32.
        final_weights: (ΣF,) log weights.
        arc_offsets, state_offsets, final_offsets: (B + 1,) int64.
        lengths: (B,) int64 frames of each utterance.
        truncated: (B,) int64, how many states the search dropped for its beam or its limit of active states, summed
            over the frames; 0: the lattice holds every path.
        tags: names of the utterances for error messages, or None.
    """

    __slots__ = (*_TENSORS, *_OPTIONAL, "tags")

    arcs: torch.Tensor
    weights: torch.Tensor
    acoustic: torch.Tensor
    graph: torch.Tensor
    aux: torch.Tensor | None
    graph_arcs: torch.Tensor | None
    frames: torch.Tensor
    final_states: torch.Tensor
    final_weights: torch.Tensor
    arc_offsets: torch.Tensor
    state_offsets: torch.Tensor
    final_offsets: torch.Tensor
    lengths: torch.Tensor
    truncated: torch.Tensor
    tags: tuple[str, ...] | None

    def __init__(
        self,
        arcs: Integers,
        acoustic: Floats,
        graph: Floats | None = None,
        *,
        frames: Integers,
        final_states: Integers,
        final_weights: Floats,
        arc_offsets: Integers,
        state_offsets: Integers,
        final_offsets: Integers,
        aux: Integers | None = None,
        graph_arcs: Integers | None = None,
        lengths: Integers | None = None,
        truncated: Integers | None = None,
        tags: Sequence[str] | None = None,
    ) -> None:
        """A lattice from its parts, which are the attributes; `weights` become `acoustic` + `graph`.

        Args:
            graph: None means 0.
            lengths: None means the latest frame at which a state of the utterance stands.
            truncated: None means 0.

        Raises:
            FsaError: names sequence, arc and state of the first thing wrong: a cycle, arcs out of order, a frame that
                doesn't rise along an arc, a state that isn't there, a weight that is NaN or +inf.
            ShapeError, DtypeError, DeviceError: an argument isn't of the shape or kind above.
        """
        first_state = integer_array(state_offsets, argument="state_offsets", shape=(None,))
        batch = first_state.shape[0] - 1
        if batch < 0:
            raise ShapeError("state_offsets must have B + 1 entries, got none", argument="state_offsets")
        rows = int32_array(integer_array(arcs, argument="arcs", shape=(None, 3)), argument="arcs")
        stamps = int32_array(integer_array(frames, argument="frames", shape=(None,)), argument="frames")
        count = rows.shape[0]
        heard = weight_tensor(acoustic, argument="acoustic", size=count)
        given = (
            torch.zeros_like(heard) if graph is None else weight_tensor(graph, argument="graph", size=count)
        )
        finals = int32_array(
            integer_array(final_states, argument="final_states", shape=(None,)), argument="final_states"
        )
        final_weight = weight_tensor(final_weights, argument="final_weights", size=finals.shape[0])
        for name, tensor in (("graph", given), ("final_weights", final_weight)):
            if tensor.device != heard.device:
                raise DeviceError(f"acoustic is on {heard.device}, {name} on {tensor.device}", argument=name)
        given = match_dtype(given, heard, argument="graph")
        structure: dict[str, NDArray[Any]] = {
            "arcs": rows,
            "frames": stamps,
            "final_states": finals,
            "arc_offsets": integer_array(arc_offsets, argument="arc_offsets", shape=(batch + 1,)),
            "state_offsets": first_state,
            "final_offsets": integer_array(final_offsets, argument="final_offsets", shape=(batch + 1,)),
            "lengths": _latest(stamps, first_state)
            if lengths is None
            else integer_array(lengths, argument="lengths", shape=(batch,)),
        }
        names = None if tags is None else tuple(tags)
        if names is not None and len(names) != batch:
            raise ShapeError(
                f"tags must name each of the {batch} utterances, got {len(names)}", argument="tags"
            )
        weights = heard + given
        check_lattice(
            **structure,
            weights=weights.detach().cpu().numpy(),
            final_weights=final_weight.detach().cpu().numpy(),
            tags=names,
        )
        structure["truncated"] = (
            np.zeros(batch, dtype=np.int64)
            if truncated is None
            else integer_array(truncated, argument="truncated", shape=(batch,))
        )
        if aux is not None:
            structure["aux"] = int32_array(integer_array(aux, argument="aux", shape=(count,)), argument="aux")
        if graph_arcs is not None:
            structure["graph_arcs"] = integer_array(graph_arcs, argument="graph_arcs", shape=(count,))
        parts: dict[str, torch.Tensor | None] = dict.fromkeys(_OPTIONAL)
        parts |= {name: torch.from_numpy(array).to(heard.device) for name, array in structure.items()}
        parts |= {"weights": weights, "acoustic": heard, "graph": given}
        parts["final_weights"] = match_dtype(final_weight, heard, argument="final_weights")
        self._set(parts, names)

    def _set(self, parts: dict[str, torch.Tensor | None], tags: tuple[str, ...] | None) -> None:
        for name in (*_TENSORS, *_OPTIONAL):
            setattr(self, name, parts[name])
        self.tags = tags

    @classmethod
    def _from_checked(
        cls, parts: dict[str, torch.Tensor | None], tags: tuple[str, ...] | None = None
    ) -> Lattice:
        """A lattice from parts that have been checked before, or are right by construction."""
        lattice = cls.__new__(cls)
        lattice._set(parts, tags)
        return lattice

    def _parts(self) -> dict[str, torch.Tensor | None]:
        return {name: getattr(self, name) for name in (*_TENSORS, *_OPTIONAL)}

    @classmethod
    def from_arcs(
        cls,
        arcs: Integers,
        weights: Floats | None = None,
        *,
        final: dict[int, float] | None = None,
        num_states: int | None = None,
        frames: Integers | None = None,
        aux: Integers | None = None,
    ) -> Lattice:
        """The lattice of one utterance, from arcs in any order with any numbers of states; state 0 is the start.

        Arguments are those of `Fsa`; `weights` become the graph's part, the acoustic part is 0.

        Raises:
            FsaError: the arcs form a cycle, or as `Fsa` says.
        """
        return cls.from_fsa(Fsa(arcs, weights, num_states=num_states, final=final), frames=frames, aux=aux)

    @classmethod
    def from_fsa(
        cls, fsa: Fsa | FsaBatch, *, frames: Integers | None = None, aux: Integers | None = None
    ) -> Lattice:
        """Acyclic automata as lattices: states are sorted, arcs too; gradients reach the automata's weights.

        States that the start doesn't reach are left out, with their arcs. `graph_arcs` are the automata's arcs.

        Args:
            fsa: one automaton, or a batch of B; their weights become the graph's part, the acoustic part is 0.
            frames: (ΣS,) frame of each state of the automata; None means the number of arcs of the longest path to it.
            aux: (ΣA,) auxiliary label of each arc of the automata.

        Raises:
            FsaError: an automaton has a cycle; names sequence and state.
        """
        graphs = FsaBatch.from_list([fsa]) if isinstance(fsa, Fsa) else fsa
        total = int(graphs.num_states.sum())
        stamps = None if frames is None else integer_array(frames, argument="frames", shape=(total,))
        words = (
            None
            if aux is None
            else int32_array(
                integer_array(aux, argument="aux", shape=(graphs.arcs.shape[0],)), argument="aux"
            )
        )
        return _sorted_lattice(cls, graphs, stamps, words)

    def __len__(self) -> int:
        return self.lengths.shape[0]

    def __getitem__(self, index: int) -> Lattice:
        if not -len(self) <= index < len(self):
            raise IndexError(f"utterance {index} of a lattice of {len(self)}")
        index %= len(self)
        ranges = {
            kind: tuple(getattr(self, f"{kind}_offsets")[index : index + 2].tolist())
            for kind in ("arc", "state", "final")
        }
        parts: dict[str, torch.Tensor | None] = {}
        for name, kind in (
            ("arcs", "arc"), ("weights", "arc"), ("acoustic", "arc"), ("graph", "arc"), ("aux", "arc"),
            ("graph_arcs", "arc"), ("frames", "state"), ("final_states", "final"), ("final_weights", "final"),
        ):  # fmt: skip
            tensor = getattr(self, name)
            parts[name] = None if tensor is None else tensor[slice(*ranges[kind])]
        for kind, (begin, end) in ranges.items():
            parts[f"{kind}_offsets"] = torch.tensor([0, end - begin], device=self.device)
        for name in ("lengths", "truncated"):
            parts[name] = getattr(self, name)[index : index + 1]
        return Lattice._from_checked(parts, None if self.tags is None else (self.tags[index],))

    def __iter__(self) -> Iterator[Lattice]:
        return (self[index] for index in range(len(self)))

    def unbind(self) -> list[Lattice]:
        """The lattices one by one, each of one utterance; they share memory, and gradients flow through."""
        return list(self)

    @property
    def device(self) -> torch.device:
        return self.weights.device

    @property
    def empty(self) -> torch.Tensor:
        """(B,) bool: the utterance has no path."""
        return self.state_offsets[1:] == self.state_offsets[:-1]

    def to(self, device: torch.device | str) -> Lattice:
        """The lattice with all tensors on `device`; itself if they are there already."""
        target = torch.device(device)
        if self.device == target:
            return self
        parts = {name: None if t is None else t.to(target) for name, t in self._parts().items()}
        return Lattice._from_checked(parts, self.tags)

    def utterance_of_arcs(self) -> torch.Tensor:
        """(ΣA,) int64 utterance of each arc."""
        counts = self.arc_offsets[1:] - self.arc_offsets[:-1]
        return torch.repeat_interleave(counts)

    def arc_frames(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(ΣA,) int64 each: the first frame of each arc, and the one behind its last."""
        first = self.state_offsets[:-1][self.utterance_of_arcs()]
        frames = self.frames.to(torch.int64)
        return frames[first + self.arcs[:, 0]], frames[first + self.arcs[:, 1]]

    def to_fsa(self) -> FsaBatch:
        """The lattices as automata with the same states, arcs and weights; gradients flow through.

        An utterance without a path becomes an automaton of one state that accepts nothing.
        """
        sizes = (self.state_offsets[1:] - self.state_offsets[:-1]).clamp(min=1)
        return FsaBatch._from_checked(
            {
                "arcs": self.arcs,
                "weights": self.weights,
                "final_states": self.final_states,
                "final_weights": self.final_weights,
                "starts": torch.zeros_like(sizes, dtype=torch.int32),
                "num_states": sizes.to(torch.int32),
                "arc_offsets": self.arc_offsets,
                "final_offsets": self.final_offsets,
            },
            self.tags,
        )

    def with_weights(self, weights: torch.Tensor, final_weights: torch.Tensor | None = None) -> Lattice:
        """The same lattice with other arc weights (ΣA,), such as scaled ones; the parts stay as they are.

        Raises:
            ShapeError, DtypeError: not a float tensor of that shape.
            FsaError: a weight is NaN or +inf; names sequence and arc.
        """
        parts = self._parts()
        parts["weights"] = weight_tensor(weights, argument="weights", size=self.arcs.shape[0])
        if final_weights is not None:
            parts["final_weights"] = weight_tensor(
                final_weights, argument="final_weights", size=self.final_states.shape[0]
            )
        changed = Lattice._from_checked(parts, self.tags)
        changed.check_weights()
        return changed

    def check_weights(self) -> None:
        """Raises FsaError where an arc weight or final weight is NaN or +inf; names sequence and arc or state."""
        for values, offsets, states in (
            (self.weights, self.arc_offsets, None),
            (self.final_weights, self.final_offsets, self.final_states.cpu().numpy()),
        ):
            if not bool((values < torch.inf).all()):
                check_weights(
                    values.detach().cpu().numpy(),
                    offsets.cpu().numpy(),
                    states=states,
                    tags=self.tags,
                    single=False,
                )

    def check(self) -> None:
        """Raises FsaError where the lattice is malformed; an optimizer may have run since it was made."""
        names = (
            "arcs", "weights", "frames", "final_states", "final_weights", "arc_offsets", "state_offsets",
            "final_offsets", "lengths",
        )  # fmt: skip
        arrays = {name: getattr(self, name).detach().cpu().numpy() for name in names}
        check_lattice(**arrays, tags=self.tags)

    def __reduce__(self) -> tuple[Any, ...]:
        return Lattice._from_checked, (self._parts(), self.tags)

    def __repr__(self) -> str:
        return (
            f"Lattice(utterances={len(self)}, states={self.frames.shape[0]}, arcs={self.arcs.shape[0]}, "
            f"empty={int(self.empty.sum())}, truncated={int((self.truncated > 0).sum())}, "
            f"dtype={self.weights.dtype})"
        )


def _latest(frames: NDArray[np.int32], state_offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """(B,) latest frame at which a state of each utterance stands; offsets may still be wrong here."""
    pairs = zip(state_offsets[:-1].tolist(), state_offsets[1:].tolist(), strict=True)
    return np.array([int(frames[max(a, 0) : b].max(initial=0)) for a, b in pairs], dtype=np.int64)


def _sorted_lattice(
    cls: type[Lattice], graphs: FsaBatch, frames: NDArray[np.int64] | None, aux: NDArray[np.int32] | None
) -> Lattice:
    arcs = graphs.arcs.cpu().numpy()
    arc_offsets, final_offsets = graphs.arc_offsets.tolist(), graphs.final_offsets.tolist()
    finals = graphs.final_states.cpu().numpy()
    first_state = np.concatenate(([0], np.cumsum(graphs.num_states.cpu().numpy(), dtype=np.int64)))
    kept: list[NDArray[np.int64]] = []
    kept_finals: list[NDArray[np.int64]] = []
    rows: list[NDArray[np.int32]] = []
    stamps: list[NDArray[np.int64]] = []
    states: list[NDArray[np.int32]] = []
    for b in range(len(graphs)):
        own = arcs[arc_offsets[b] : arc_offsets[b + 1]]
        count = int(graphs.num_states[b])
        depth, order = _topological(own, int(graphs.starts[b]), count, b)
        number = np.full(count, -1, dtype=np.int32)
        number[order] = np.arange(order.size, dtype=np.int32)
        reached = np.flatnonzero(number[own[:, 0]] >= 0)
        chosen = reached[np.argsort(number[own[reached, 0]], kind="stable")]
        renumbered = own[chosen].copy()
        renumbered[:, :2] = number[renumbered[:, :2]]
        rows.append(renumbered)
        kept.append(chosen + arc_offsets[b])
        stamps.append(depth[order] if frames is None else frames[first_state[b] + order])
        ends = np.arange(final_offsets[b], final_offsets[b + 1])
        ends = ends[number[finals[ends]] >= 0]
        kept_finals.append(ends)
        states.append(number[finals[ends]])

    def joined(arrays: list[Any], empty: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate(arrays) if arrays else empty

    def offsets(arrays: list[Any]) -> NDArray[np.int64]:
        return np.concatenate(([0], np.cumsum([len(a) for a in arrays], dtype=np.int64)))

    none = np.zeros(0, dtype=np.int64)
    chosen = joined(kept, none)
    device = graphs.weights.device
    weights = graphs.weights[torch.from_numpy(chosen).to(device)]
    local = chosen - np.repeat(np.array(arc_offsets[:-1], dtype=np.int64), [len(a) for a in kept])
    return cls(
        joined(rows, np.zeros((0, 3), dtype=np.int32)),
        torch.zeros_like(weights),
        weights,
        frames=joined(stamps, none),
        final_states=joined(states, none),
        final_weights=graphs.final_weights[torch.from_numpy(joined(kept_finals, none)).to(device)],
        arc_offsets=offsets(kept),
        state_offsets=offsets(stamps),
        final_offsets=offsets(states),
        aux=None if aux is None else aux[chosen],
        graph_arcs=local,
        tags=graphs.tags,
    )


def _topological(
    arcs: NDArray[np.int32], start: int, count: int, sequence: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Arcs on the longest path to each state (S,), and the states reached from the start, sorted by that.

    Equal ones stay in the order of their numbers. Raises FsaError where a cycle can be reached.
    """
    leaving: list[list[int]] = [[] for _ in range(count)]
    for p, q, _ in arcs.tolist():
        leaving[p].append(q)
    entered = np.zeros(count, dtype=np.int64)
    seen = np.zeros(count, dtype=bool)
    seen[start] = True
    stack = [start]
    while stack:
        for q in leaving[stack.pop()]:
            entered[q] += 1
            if not seen[q]:
                seen[q] = True
                stack.append(q)
    depth = np.zeros(count, dtype=np.int64)
    done = 0
    ready = [start] if entered[start] == 0 else []
    while ready:
        p = ready.pop()
        done += 1
        for q in leaving[p]:
            depth[q] = max(depth[q], depth[p] + 1)
            entered[q] -= 1
            if entered[q] == 0:
                ready.append(q)
    reached = np.flatnonzero(seen)
    if done < reached.size:
        state = int(np.flatnonzero(seen & (entered > 0))[0])
        raise FsaError(
            f"sequence {sequence}: state {state} lies on a cycle or behind one; a lattice is acyclic: "
            "lattice.intersect makes one of a cyclic graph and scores",
            sequence=sequence,
            state=state,
        )
    return depth, reached[np.argsort(depth[reached], kind="stable")]
