"""Many automata as flat tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from seqtrain.errors import ArgumentError, DeviceError, ShapeError
from seqtrain.fsa._arrays import Floats, Integers, int32_array, integer_array, match_dtype, weight_tensor
from seqtrain.fsa.automaton import Fsa
from seqtrain.fsa.min_length import min_length
from seqtrain.fsa.rasr import local_structure
from seqtrain.fsa.validate import check_automata, check_weights
from seqtrain.transforms import is_transformed, outside_transforms

__all__ = ["FsaBatch"]

_TENSORS = (
    "arcs",
    "weights",
    "final_states",
    "final_weights",
    "starts",
    "num_states",
    "arc_offsets",
    "final_offsets",
)


def _checked_tags(tags: Sequence[str] | None, count: int) -> tuple[str, ...] | None:
    if tags is None:
        return None
    if isinstance(tags, str) or len(tags) != count:
        raise ShapeError(f"tags must name each of the {count} automata, got {tags!r:.200}", argument="tags")
    return tuple(tags)


class FsaBatch:
    """G automata in flat tensors; `batch[i]` is the i-th `Fsa`.

    State numbers are local to each automaton. Arcs of automaton g are the rows `arc_offsets[g]` …
    `arc_offsets[g + 1]`, in that automaton's own order; final states likewise.

    Args (which are also the attributes):
        arcs: (ΣA, 3) int32, rows `[source, destination, label]`.
        weights: (ΣA,) float32 or float64 natural-log weights, -inf forbids an arc; may require grad.
        final_states: (ΣF,) int32.
        final_weights: (ΣF,) log weights, of the dtype of `weights`.
        starts: (G,) int32.
        num_states: (G,) int32.
        arc_offsets: (G + 1,) int64.
        final_offsets: (G + 1,) int64.
        tags: names of the utterances for error messages, or None.

    Raises:
        FsaError: names sequence, arc and state of the first thing wrong.
        ShapeError, DtypeError, DeviceError: an argument isn't of the shape or kind above.
    """

    __slots__ = (*_TENSORS, "derived", "tags")

    arcs: torch.Tensor
    weights: torch.Tensor
    final_states: torch.Tensor
    final_weights: torch.Tensor
    starts: torch.Tensor
    num_states: torch.Tensor
    arc_offsets: torch.Tensor
    final_offsets: torch.Tensor
    tags: tuple[str, ...] | None
    derived: dict[str, Any]
    """What was computed from the structure (not the weights), such as compiled layouts: shared by the batches
    that `with_weights`, `with_tags` and `scale_weights` return; fresh after `to`; not pickled."""

    def __init__(
        self,
        arcs: Integers,
        weights: Floats,
        *,
        final_states: Integers,
        final_weights: Floats,
        starts: Integers,
        num_states: Integers,
        arc_offsets: Integers,
        final_offsets: Integers,
        tags: Sequence[str] | None = None,
    ) -> None:
        sizes = integer_array(num_states, argument="num_states", shape=(None,))
        count = sizes.shape[0]
        arc_array = int32_array(integer_array(arcs, argument="arcs", shape=(None, 3)), argument="arcs")
        finals = int32_array(
            integer_array(final_states, argument="final_states", shape=(None,)), argument="final_states"
        )
        weight = weight_tensor(weights, argument="weights", size=arc_array.shape[0])
        final_weight = weight_tensor(final_weights, argument="final_weights", size=finals.shape[0])
        if weight.device != final_weight.device:
            raise DeviceError(
                f"weights are on {weight.device}, final_weights on {final_weight.device}",
                argument="final_weights",
            )
        arrays = {
            "arcs": arc_array,
            "final_states": finals,
            "starts": int32_array(
                integer_array(starts, argument="starts", shape=(count,)), argument="starts"
            ),
            "num_states": int32_array(sizes, argument="num_states"),
            "arc_offsets": integer_array(arc_offsets, argument="arc_offsets", shape=(count + 1,)),
            "final_offsets": integer_array(final_offsets, argument="final_offsets", shape=(count + 1,)),
        }
        names = _checked_tags(tags, count)
        check_automata(
            **arrays,  # type: ignore[arg-type]  # the dict mixes the int32 and int64 arrays that the names tell apart
            weights=weight.detach().cpu().numpy(),
            final_weights=final_weight.detach().cpu().numpy(),
            tags=names,
        )
        parts = {name: torch.from_numpy(array).to(weight.device) for name, array in arrays.items()}
        parts["weights"] = weight
        parts["final_weights"] = match_dtype(final_weight, weight, argument="final_weights")
        self._set(parts, names, {})

    def _set(
        self, parts: dict[str, torch.Tensor], tags: tuple[str, ...] | None, derived: dict[str, Any]
    ) -> None:
        for name in _TENSORS:
            setattr(self, name, parts[name])
        self.tags = tags
        self.derived = derived

    @classmethod
    def _from_checked(
        cls,
        parts: dict[str, torch.Tensor],
        tags: tuple[str, ...] | None = None,
        derived: dict[str, Any] | None = None,
    ) -> FsaBatch:
        """A batch from parts that have been checked before, or are right by construction."""
        batch = cls.__new__(cls)
        batch._set(parts, tags, {} if derived is None else derived)
        return batch

    def _parts(self) -> dict[str, torch.Tensor]:
        return {name: getattr(self, name) for name in _TENSORS}

    def _flat(self) -> dict[str, Any]:
        return {name: tensor.detach().cpu().numpy() for name, tensor in self._parts().items()}

    @classmethod
    def from_list(cls, automata: Sequence[Fsa], *, tags: Sequence[str] | None = None) -> FsaBatch:
        """The automata as one batch, in this order; gradients reach each automaton's weights.

        Weights take the widest dtype that occurs.

        Raises:
            DeviceError: the weights are on different devices.
            ShapeError: `tags` aren't as many as the automata.
        """
        automata = list(automata)
        devices = {fsa.weights.device for fsa in automata}
        if len(devices) > 1:
            raise DeviceError(
                f"the weights of the automata are on different devices: {sorted(map(str, devices))}",
                argument="automata",
            )
        device = devices.pop() if devices else torch.device("cpu")
        double = any(fsa.weights.dtype == torch.float64 for fsa in automata)
        dtype = torch.float64 if double else torch.float32

        def joined(tensors: list[torch.Tensor], empty: torch.Tensor) -> torch.Tensor:
            if not tensors:
                return empty
            return tensors[0] if len(tensors) == 1 else torch.cat(tensors)

        def offsets(sizes: list[int]) -> torch.Tensor:
            return torch.from_numpy(np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))))

        no_floats = torch.zeros(0, dtype=dtype)
        structure = {
            "arcs": joined([fsa.arcs for fsa in automata], torch.zeros((0, 3), dtype=torch.int32)),
            "final_states": joined([f.final_states for f in automata], torch.zeros(0, dtype=torch.int32)),
            "starts": torch.tensor([fsa.start for fsa in automata], dtype=torch.int32),
            "num_states": torch.tensor([fsa.num_states for fsa in automata], dtype=torch.int32),
            "arc_offsets": offsets([fsa.arcs.shape[0] for fsa in automata]),
            "final_offsets": offsets([fsa.final_states.shape[0] for fsa in automata]),
        }
        parts = {name: tensor.to(device) for name, tensor in structure.items()}
        parts["weights"] = joined([fsa.weights.to(dtype) for fsa in automata], no_floats)
        parts["final_weights"] = joined([fsa.final_weights.to(dtype) for fsa in automata], no_floats)
        # The layouts of an automaton that all utterances share are compiled once.
        derived = automata[0].derived if len(automata) == 1 else {}
        return cls._from_checked(parts, _checked_tags(tags, len(automata)), derived)

    @classmethod
    def from_rasr(
        cls,
        num_states: int | Integers | None,
        edges: Integers,
        weights: Floats,
        start_end: Integers,
        *,
        tdp_scale: float | torch.Tensor = 1.0,
        tags: Sequence[str] | None = None,
    ) -> FsaBatch:
        """Automata as RASR exports them, in the batch layout of RETURNN's `fast_baum_welch`.

        State numbers there run through the whole batch; here they become local to each automaton, the lowest
        one 0. The edges of a sequence keep their order.

        Args:
            num_states: of the whole batch, or (B,) of each sequence, or None to take it from edges and
                start_end. With numbers for each sequence the states of sequence b must lie behind those of b
                - 1, without gap.
            edges: (4, A) integers, rows: from, to, label, sequence.
            weights: (A,) costs, that is -log; +inf forbids an edge. May require grad.
            start_end: (2, B) integers, rows: start state, end state. The end is final with weight 0.
            tdp_scale: factor for the weights (`scale_weights`).
            tags: (B,) names of the segments.

        Raises:
            FsaError: an edge of a sequence that start_end doesn't have, a state outside its sequence or the
                batch, a negative label, a cost that is NaN or -inf.
            ShapeError, DtypeError, ArgumentError: an argument isn't of the shape or kind above.
        """
        structure, order = local_structure(num_states, edges, start_end)
        costs = weight_tensor(weights, argument="weights", size=order.shape[0])
        log_weights = 0.0 - costs[torch.from_numpy(order).to(costs.device)]
        count = structure["final_states"].shape[0]
        batch = cls(
            weights=log_weights,
            final_weights=torch.zeros(count, dtype=costs.dtype, device=costs.device),
            tags=tags,
            **structure,
        )
        return (
            batch
            if isinstance(tdp_scale, (int, float)) and tdp_scale == 1.0
            else batch.scale_weights(tdp_scale)
        )

    def __len__(self) -> int:
        return self.num_states.shape[0]

    def __getitem__(self, index: int) -> Fsa:
        if not -len(self) <= index < len(self):
            raise IndexError(f"automaton {index} of a batch of {len(self)}")
        index %= len(self)
        return self._automaton(
            self.arc_offsets[index : index + 2].tolist(),
            self.final_offsets[index : index + 2].tolist(),
            int(self.num_states[index]),
            int(self.starts[index]),
        )

    def __iter__(self) -> Iterator[Fsa]:
        # Numbers of all automata at once: one by one, that takes longer than all the rest.
        numbers = zip(
            itertools.pairwise(self.arc_offsets.tolist()),
            itertools.pairwise(self.final_offsets.tolist()),
            self.num_states.tolist(),
            self.starts.tolist(),
            strict=True,
        )
        return itertools.starmap(self._automaton, numbers)

    def _automaton(self, arcs: Sequence[int], finals: Sequence[int], num_states: int, start: int) -> Fsa:
        """The automaton with these rows of arcs and of final states, as a view."""
        return Fsa._from_checked(
            self.arcs[slice(*arcs)].cpu(),
            self.weights[slice(*arcs)],
            num_states,
            start,
            self.final_states[slice(*finals)].cpu(),
            self.final_weights[slice(*finals)],
        )

    def unbind(self) -> list[Fsa]:
        """The automata one by one; they share memory with the batch, and gradients flow through."""
        return list(self)

    @property
    def device(self) -> torch.device:
        return self.weights.device

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> FsaBatch:
        """The batch with all tensors on `device`; the batch itself if they are there already.

        With `non_blocking`, copies from pinned memory (`pin_memory`) go on beside the host's work, as `Tensor.to` says.
        """
        target = torch.device(device)
        if self.device == target:
            return self
        parts = {name: tensor.to(target, non_blocking=non_blocking) for name, tensor in self._parts().items()}
        return FsaBatch._from_checked(parts, self.tags)

    def pin_memory(self) -> FsaBatch:
        """A copy in page-locked host memory; a DataLoader with `pin_memory=True` calls this.

        Raises:
            RuntimeError: torch finds no accelerator to pin memory for.
        """
        parts = {name: tensor.pin_memory() for name, tensor in self._parts().items()}
        return FsaBatch._from_checked(parts, self.tags)

    def with_weights(self, weights: Floats, final_weights: Floats | None = None) -> FsaBatch:
        """The same automata with other log weights, such as trainable ones: (ΣA,), and (ΣF,) unless None
        (unchanged).

        Raises:
            FsaError: a weight is NaN or +inf; names sequence and arc.
            ShapeError, DtypeError, DeviceError: not a float tensor of that shape on this batch's device.
        """
        weight = weight_tensor(weights, argument="weights", size=self.arcs.shape[0])
        finals = (
            self.final_weights
            if final_weights is None
            else weight_tensor(final_weights, argument="final_weights", size=self.final_states.shape[0])
        )
        for name, tensor in (("weights", weight), ("final_weights", finals)):
            if tensor.device != self.device:
                raise DeviceError(
                    f"{name} are on {tensor.device}, the automata on {self.device}", argument=name
                )
        finals = match_dtype(finals, weight, argument="final_weights")
        with outside_transforms():
            self._check_weights(weight, finals)
        parts = self._parts() | {"weights": weight, "final_weights": finals}
        return FsaBatch._from_checked(parts, self.tags, self.derived)

    def _check_weights(self, weights: torch.Tensor, final_weights: torch.Tensor) -> None:
        for values, offsets, states in (
            (weights, self.arc_offsets, None),
            (final_weights, self.final_offsets, self.final_states.cpu().numpy()),
        ):
            if is_transformed(values):
                continue  # under torch.func there's nothing to look at; the operators check weights themselves
            check_weights(
                values.detach().cpu().numpy(),
                offsets.cpu().numpy(),
                states=states,
                tags=self.tags,
                single=False,
            )

    def with_tags(self, tags: Sequence[str] | None) -> FsaBatch:
        """The same automata, named for error messages.

        Raises:
            ShapeError: not as many names as automata.
        """
        return FsaBatch._from_checked(self._parts(), _checked_tags(tags, len(self)), self.derived)

    def scale_weights(self, factor: float | torch.Tensor) -> FsaBatch:
        """All arc and final weights times `factor` (a number, or a tensor of one element that may require
        grad).

        Weights of -inf stay -inf, also for factor 0: what is forbidden stays forbidden, and passes no
        gradient.

        Raises:
            ArgumentError: a factor that isn't finite.
        """
        if not bool(torch.isfinite(torch.as_tensor(factor)).all()):
            raise ArgumentError(f"factor must be finite, got {factor}", argument="factor")

        def scaled(weights: torch.Tensor) -> torch.Tensor:
            forbidden = weights == -torch.inf
            # Zeros go into the product, since 0 · -inf would be NaN in the value or in the factor's gradient.
            return (weights.masked_fill(forbidden, 0.0) * factor).masked_fill(forbidden, -torch.inf)

        parts = self._parts() | {
            "weights": scaled(self.weights).to(self.weights.dtype),
            "final_weights": scaled(self.final_weights).to(self.weights.dtype),
        }
        return FsaBatch._from_checked(parts, self.tags, self.derived)

    def min_length(self) -> torch.Tensor:
        """Fewest frames each automaton accepts: (G,) int64 CPU tensor, -1 where it accepts nothing.

        Arcs and final states of weight -inf don't count.
        """
        flat = self._flat()
        if (flat["weights"] == -np.inf).any() or (flat["final_weights"] == -np.inf).any():
            return torch.from_numpy(min_length(**flat))
        # Without forbidden arcs the answer is a matter of structure.
        if "min_length" not in self.derived:
            self.derived["min_length"] = torch.from_numpy(min_length(**flat))
        shortest: torch.Tensor = self.derived["min_length"]
        return shortest.clone()

    def __reduce__(self) -> tuple[Any, ...]:
        return FsaBatch._from_checked, (self._parts(), self.tags)

    def __repr__(self) -> str:
        return (
            f"FsaBatch({len(self)} automata, {int(self.num_states.sum())} states, {self.arcs.shape[0]} arcs, "
            f"dtype={self.weights.dtype}, device={self.device})"
        )
