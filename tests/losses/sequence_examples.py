"""Batches of hypotheses and references, and what any measure of them must refuse."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st

from seqtrain.errors import ArgumentError, DtypeError, ShapeError

__all__ = ["BAD_SEQUENCES", "GOOD", "SequencePairs", "sequence_pairs"]


class SequencePairs(NamedTuple):
    """Arguments of a measure; padding holds labels that are none."""

    hypotheses: torch.Tensor
    references: torch.Tensor
    hypothesis_lengths: torch.Tensor
    reference_lengths: torch.Tensor

    def pairs(self) -> list[tuple[list[int], list[int]]]:
        """(hypothesis, reference) of each utterance."""
        return [
            (hypothesis[:h], reference[:r])
            for hypothesis, reference, h, r in zip(*(tensor.tolist() for tensor in self), strict=True)
        ]


def _padded(sequences: list[list[int]], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64)
    width = max(map(len, sequences), default=0) + 1
    rows = [sequence + [-9] * (width - len(sequence)) for sequence in sequences]
    return torch.tensor(rows, dtype=dtype).reshape(len(sequences), width), lengths


@st.composite
def sequence_pairs(
    draw: st.DrawFn, *, num_labels: int = 4, max_length: int = 9, min_reference: int = 0
) -> SequencePairs:
    """Up to four pairs, in int32 or int64."""
    label = st.integers(0, num_labels - 1)
    batch = draw(st.integers(0, 4))
    sides = [
        draw(
            st.lists(st.lists(label, min_size=shortest, max_size=max_length), min_size=batch, max_size=batch)
        )
        for shortest in (0, min_reference)
    ]
    dtypes = [draw(st.sampled_from([torch.int32, torch.int64])) for _ in range(2)]
    (hypotheses, h), (references, r) = (
        _padded(side, dtype) for side, dtype in zip(sides, dtypes, strict=True)
    )
    return SequencePairs(hypotheses, references, h, r.int())


GOOD: dict[str, Any] = {
    "hypotheses": torch.tensor([[1, 2, 3], [2, 2, 0]]), "references": torch.tensor([[1, 3], [2, 0]]),
    "hypothesis_lengths": torch.tensor([3, 2]), "reference_lengths": torch.tensor([2, 1]),
}  # fmt: skip

BAD_SEQUENCES: list[tuple[dict[str, Any], type[ArgumentError], str, str]] = [
    ({"hypotheses": [[1]]}, DtypeError, "hypotheses", r"must be a torch\.Tensor, got list"),
    ({"hypotheses": torch.ones(2, 3)}, DtypeError, "hypotheses", r"integer labels, got torch\.float32"),
    ({"references": torch.ones(2, 2).bool()}, DtypeError, "references", r"integer labels, got torch\.bool"),
    ({"references": torch.ones(2).long()}, ShapeError, "references", r"shape \(B, any\), got \(2,\)"),
    (
        {"references": torch.ones(3, 2).long()},
        ShapeError,
        "references",
        "as many as the hypotheses, 2, got 3",
    ),
    (
        {"hypothesis_lengths": torch.tensor([3, 4])},
        ShapeError,
        "hypothesis_lengths",
        r"hypothesis_lengths\[1\] = 4 must lie in 0 … 3, the labels of hypotheses",
    ),
    (
        {"reference_lengths": torch.tensor([-1, 1])},
        ShapeError,
        "reference_lengths",
        r"reference_lengths\[0\] = -1 must lie in 0 … 2, the labels of references",
    ),
    ({"hypothesis_lengths": torch.tensor([3])}, ShapeError, "hypothesis_lengths", r"\(2\), got \(1,\)"),
    ({"reference_lengths": torch.tensor([2.0, 1.0])}, DtypeError, "reference_lengths", "an integer tensor"),
    ({"reduction": "mean"}, ArgumentError, "reduction", "must be one of 'none', 'sum', 'batch'"),
]
