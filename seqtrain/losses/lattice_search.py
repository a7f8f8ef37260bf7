"""Hypotheses out of lattices: the exact k best label sequences, or samples, of scores and a graph."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from seqtrain.errors import ArgumentError, ShapeError
from seqtrain.fsa import Fsa
from seqtrain.lattice.intersect import intersect
from seqtrain.lattice.paths import nbest, sample_paths
from seqtrain.losses.hypotheses import Hypotheses

__all__ = ["LatticeSearch"]

_DRAWS = ("best", "sample")


class LatticeSearch:
    """What `MWERLoss` calls for hypotheses: intersects the scores with a graph, and takes paths of the lattice.

    Args:
        graph: one automaton for all utterances, such as CTC with a language model.
        tokens: (A,) what each of its arcs says, -1 for nothing.
        count: hypotheses of an utterance; fewer where there aren't as many.
        draw: "best": the label sequences with the best paths, distinct; "sample": those of paths that are drawn.
        beam, max_active: of `seqtrain.lattice.intersect`; by default nothing is pruned, and the result is exact.
        generator: of the samples; None means torch's own.

    Attributes:
        truncated: (B,) int64 states that the beam dropped in the last call; None before the first.

    Raises:
        ArgumentError: `count` below 1, or an unknown `draw`. ShapeError: `tokens` aren't as many as the arcs.
    """

    def __init__(
        self,
        graph: Fsa,
        tokens: Sequence[int] | torch.Tensor,
        *,
        count: int = 8,
        draw: str = "best",
        beam: float = math.inf,
        max_active: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if count < 1:
            raise ArgumentError(f"count must be at least 1, got {count}", argument="count")
        if draw not in _DRAWS:
            raise ArgumentError(f"draw must be 'best' or 'sample', got {draw!r}", argument="draw")
        self.tokens = torch.as_tensor(tokens, dtype=torch.int32)
        if self.tokens.shape != (graph.arcs.shape[0],):
            raise ShapeError(
                f"tokens must be one for each of the {graph.arcs.shape[0]} arcs, got {tuple(self.tokens.shape)}",
                argument="tokens",
            )
        self.graph = graph
        self.count = count
        self.draw = draw
        self.beam = beam
        self.max_active = max_active
        self.generator = generator
        self.truncated: torch.Tensor | None = None

    @classmethod
    def ctc(
        cls,
        num_labels: int,
        *,
        blank: int = 0,
        label_loop: bool = True,
        count: int = 8,
        draw: str = "best",
        beam: float = math.inf,
        max_active: int | None = None,
        generator: torch.Generator | None = None,
    ) -> LatticeSearch:
        """Any label sequence, as CTC spells them: a state for each last label, V² arcs."""
        if not 0 <= blank < num_labels:
            raise ArgumentError(f"blank must lie in 0 … {num_labels - 1}, got {blank}", argument="blank")
        last, label = (x.flatten() for x in torch.meshgrid(*[torch.arange(num_labels)] * 2, indexing="ij"))
        silent = (label == blank) | (
            (label == last) if label_loop else torch.zeros_like(label, dtype=torch.bool)
        )
        graph = Fsa(
            torch.stack([last, label, label], dim=1),
            num_states=num_labels,
            start=blank,
            final=dict.fromkeys(range(num_labels), 0.0),
        )
        return cls(
            graph, torch.where(silent, -1, label), count=count, draw=draw, beam=beam, max_active=max_active,
            generator=generator,
        )  # fmt: skip

    def __call__(self, scores: torch.Tensor, lengths: torch.Tensor) -> Hypotheses:
        """Hypotheses of scores (B, T, V) and lengths (B,), found on the host; none of an utterance without a path.

        Raises what `seqtrain.lattice.intersect` does, InfeasibleError aside.
        """
        lattice = intersect(
            scores.detach().cpu(), lengths, self.graph, beam=self.beam, max_active=self.max_active, aux=self.tokens,
            on_infeasible="mask",
        )  # fmt: skip
        self.truncated = lattice.truncated
        paths = (
            nbest(lattice, self.count, unique="aux")
            if self.draw == "best"
            else sample_paths(lattice, self.count, generator=self.generator)
        )
        return Hypotheses.from_lists(paths.by_utterance(paths.aux()))
