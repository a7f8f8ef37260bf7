"""Paths through lattices: the best, the k best, and samples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from seqtrain.errors import ArgumentError, ShapeError
from seqtrain.lattice.lattice import Lattice
from seqtrain.lattice.total_score import check_on_host, operands
from seqtrain.ops.lattice_paths import lattice_best_paths, lattice_sample

__all__ = ["Paths", "best_path", "nbest", "sample_paths"]


@dataclass(frozen=True)
class Paths:
    """N paths through the lattices of a batch; those of utterance b are `path_offsets[b]` … `path_offsets[b + 1]`.

    Attributes:
        lattice: whose paths they are.
        path_offsets: (B + 1,) int64.
        arc_offsets: (N + 1,) int64 into `arcs`.
        arcs: (ΣL,) int64 arcs of all paths, as rows of `lattice.arcs`.
        finals: (N,) int64 final state of each path, as an item of `lattice.final_states`.
    """

    lattice: Lattice
    path_offsets: torch.Tensor
    arc_offsets: torch.Tensor
    arcs: torch.Tensor
    finals: torch.Tensor

    def __len__(self) -> int:
        return self.finals.shape[0]

    @property
    def counts(self) -> torch.Tensor:
        """(B,) int64 paths of each utterance."""
        return self.path_offsets.diff()

    @property
    def utterance(self) -> torch.Tensor:
        """(N,) int64 utterance of each path."""
        return torch.repeat_interleave(self.counts)

    def _sums(self, values: torch.Tensor) -> torch.Tensor:
        path = torch.repeat_interleave(self.arc_offsets.diff())
        zeros = values.new_zeros((len(self),), dtype=torch.float64)
        return zeros.index_add(0, path, values.to(torch.float64)[self.arcs])

    def scores(self) -> torch.Tensor:
        """(N,) log scores of the paths, of the dtype of the weights; gradients reach arc and final weights."""
        finals = self.lattice.final_weights.to(torch.float64)[self.finals]
        return (self._sums(self.lattice.weights) + finals).to(self.lattice.weights.dtype)

    def acoustic_scores(self) -> torch.Tensor:
        """(N,) the acoustic part of the scores."""
        return self._sums(self.lattice.acoustic).to(self.lattice.weights.dtype)

    def graph_scores(self) -> torch.Tensor:
        """(N,) the graph's part of the scores, final weights included."""
        finals = self.lattice.final_weights.to(torch.float64)[self.finals]
        return (self._sums(self.lattice.graph) + finals).to(self.lattice.weights.dtype)

    def arcs_of(self, path: int) -> torch.Tensor:
        """(L,) arcs of one path."""
        begin, end = self.arc_offsets[path : path + 2].tolist()
        return self.arcs[begin:end]

    def labels(self) -> list[list[int]]:
        """The labels of each path, one an arc."""
        return self._split(self.lattice.arcs[:, 2][self.arcs])

    def aux(self) -> list[list[int]]:
        """The auxiliary labels of each path (words), where an arc has one.

        Raises:
            ArgumentError: the lattice has none.
        """
        return self.tokens(_aux(self.lattice))

    def tokens(self, tokens: torch.Tensor) -> list[list[int]]:
        """The tokens of each path, given those of the arcs (ΣA,), -1 where an arc has none."""
        return [[token for token in path if token >= 0] for path in self._split(tokens[self.arcs])]

    def _split(self, values: torch.Tensor) -> list[list[int]]:
        flat, ends = values.tolist(), self.arc_offsets.tolist()
        return [flat[begin:end] for begin, end in itertools.pairwise(ends)]

    def by_utterance(self, items: Sequence[list[int]]) -> list[list[list[int]]]:
        """What there is of each path, such as `labels()`, as one list an utterance."""
        ends = self.path_offsets.tolist()
        return [list(items[begin:end]) for begin, end in itertools.pairwise(ends)]


def _aux(lattice: Lattice) -> torch.Tensor:
    if lattice.aux is None:
        raise ArgumentError(
            "the lattice has no auxiliary labels: pass aux to intersect, or choose unique='labels'",
            argument="lattice",
        )
    return lattice.aux


def _tokens(lattice: Lattice, unique: str | torch.Tensor | None) -> torch.Tensor | None:
    if unique is None:
        return None
    if isinstance(unique, torch.Tensor):
        if unique.shape != (lattice.arcs.shape[0],) or unique.is_floating_point():
            raise ShapeError(
                f"unique must be integers, one for each of the {lattice.arcs.shape[0]} arcs, got {unique.dtype} "
                f"{tuple(unique.shape)}",
                argument="unique",
            )
        return unique
    if unique == "labels":
        return lattice.arcs[:, 2]
    if unique == "aux":
        return _aux(lattice)
    raise ArgumentError(
        f"unique must be 'labels', 'aux', a tensor of tokens or None, got {unique!r}", argument="unique"
    )


def nbest(lattice: Lattice, count: int, *, unique: str | torch.Tensor | None = None) -> Paths:
    """The `count` best paths of each utterance, best first; fewer where there aren't as many. Exact.

    Args:
        count: at least 1.
        unique: what may not occur twice: "labels" (the sequence of labels, one an arc), "aux" (the sequence of
            auxiliary labels, such as words), or (ΣA,) tokens of the arcs, -1 for none. The result then holds the best
            path of each of the `count` best sequences; a sequence is as good as its best path. None: the paths
            themselves.

    Paths of equal score come in a fixed order. Paths of score -inf don't count. An utterance without a path has none.

    Raises:
        ArgumentError: `count` below 1, an unknown `unique`, or "aux" where the lattice has none.
        FsaError: a weight is NaN, +inf or above 1e12.
    """
    check_on_host(lattice)
    if count < 1:
        raise ArgumentError(f"count must be at least 1, got {count}", argument="count")
    tokens = _tokens(lattice, unique)
    found = lattice_best_paths(*(t.detach() for t in operands(lattice)), count, tokens)
    return Paths(lattice, *found)


def best_path(lattice: Lattice) -> Paths:
    """The best path of each utterance: `nbest` with a count of 1."""
    return nbest(lattice, 1)


def sample_paths(
    lattice: Lattice, count: int, *, seed: int | None = None, generator: torch.Generator | None = None
) -> Paths:
    """`count` independent paths of each utterance, drawn from the lattice's distribution: exp(score - total score).

    Args:
        count: at least 1.
        seed: the same seed gives the same paths, whatever the number of threads; an utterance's paths depend on its
            place in the batch, too. None: one is drawn from `generator`.
        generator: None means torch's own.

    An utterance without a path has none.

    Raises:
        ArgumentError: `count` below 1, a seed that is negative or doesn't fit 63 bits, or both seed and generator.
        FsaError: a weight is NaN, +inf or above 1e12.
    """
    check_on_host(lattice)
    if count < 1:
        raise ArgumentError(f"count must be at least 1, got {count}", argument="count")
    if seed is None:
        seed = int(torch.randint(2**63 - 1, (1,), generator=generator))
    elif generator is not None:
        raise ArgumentError("seed and generator exclude each other", argument="seed")
    if not 0 <= seed < 2**63:
        raise ArgumentError(f"seed must lie in 0 … 2^63 - 1, got {seed}", argument="seed")
    return Paths(lattice, *lattice_sample(*(t.detach() for t in operands(lattice)), count, seed))
