"""Edit distance: the fewest substitutions, insertions and deletions that turn a reference into a hypothesis.

    d(i, j) = min(d(i - 1, j - 1) + [h_i ≠ r_j], d(i - 1, j) + 1, d(i, j - 1) + 1),   d(i, 0) = i, d(0, j) = j
V. I. Levenshtein: Binary Codes Capable of Correcting Deletions, Insertions and Reversals, Soviet Physics Doklady 1966.
"""

from __future__ import annotations

import torch

from seqtrain.errors import LabelError
from seqtrain.label_map import DELETED, LabelMap, label_table
from seqtrain.losses.label_sequences import check_sequences
from seqtrain.losses.reduction import check_reduction, reduce

__all__ = ["EditDistance", "LabelMap", "edit_distance"]

_REDUCTIONS = ("none", "sum", "batch", "targets")


def edit_distance(
    hypotheses: torch.Tensor,
    references: torch.Tensor,
    hypothesis_lengths: torch.Tensor,
    reference_lengths: torch.Tensor,
    *,
    label_map: LabelMap | None = None,
    reduction: str = "none",
) -> torch.Tensor:
    """Levenshtein distance of each hypothesis to its reference. It has no gradient.

    Args:
        hypotheses: (B, U) int labels, padded with anything.
        references: (B, R) int labels, padded with anything.
        hypothesis_lengths, reference_lengths: (B,) int.
        label_map: what becomes of labels on both sides before they are compared: another label, or none.
        reduction: "none", "sum", "batch" or "targets", the sum divided by the number of reference labels, those that
            `label_map` deletes included.

    Returns:
        (B,) float32, or their reduction, on the device of the hypotheses.

    Raises:
        LabelError (a label that `label_map` doesn't have), ShapeError, DtypeError, DeviceError. ArgumentError: the keys
        of `label_map` are not 0 … n - 1, or it leads to anything but labels and None.
    """
    check_reduction(reduction, allowed=_REDUCTIONS)
    hypothesis_lengths, reference_lengths = check_sequences(
        hypotheses, references, hypothesis_lengths, reference_lengths
    )
    target_lengths = reference_lengths
    if label_map is not None:
        table = label_table(label_map).to(hypotheses.device)
        hypotheses, hypothesis_lengths = _mapped(hypotheses, hypothesis_lengths, table, "hypotheses")
        references, reference_lengths = _mapped(references, reference_lengths, table, "references")
    distances = _distances(hypotheses, references, hypothesis_lengths, reference_lengths)
    return reduce(distances.float(), reduction, lengths=hypothesis_lengths, target_lengths=target_lengths)


def _mapped(
    labels: torch.Tensor, lengths: torch.Tensor, table: torch.Tensor, argument: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The labels (B, U) mapped, what is left of them moved together, and its lengths (B,)."""
    inside = (torch.arange(labels.shape[1]) < lengths[:, None]).to(labels.device)
    outside = inside & ((labels < 0) | (labels >= table.shape[0]))
    if bool(outside.any()):
        b, u = (int(i) for i in outside.nonzero()[0])
        label = int(labels[b, u])
        raise LabelError(
            f"{argument}[{b}, {u}] = {label} is not in label_map, which has the labels 0 … {table.shape[0] - 1}",
            argument=argument, utterance=b, position=u, label=label, num_labels=table.shape[0],
        )  # fmt: skip
    new = labels.new_full(labels.shape, DELETED, dtype=torch.int64)
    new[inside] = table[labels[inside].long()]
    kept = new != DELETED
    order = kept.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    return new.gather(1, order), kept.sum(dim=1).cpu()


def _distances(
    hypotheses: torch.Tensor,
    references: torch.Tensor,
    hypothesis_lengths: torch.Tensor,
    reference_lengths: torch.Tensor,
) -> torch.Tensor:
    """(B,) int32."""
    device = hypotheses.device
    steps = int(hypothesis_lengths.max()) if hypothesis_lengths.numel() else 0
    positions = torch.arange(references.shape[1] + 1, dtype=torch.int32, device=device)
    row = positions.expand(references.shape[0], -1)
    inside = (torch.arange(steps) < hypothesis_lengths[:, None]).to(device)
    for u in range(steps):
        # d(i - 1, ·) leads to d(i, ·) first without the moves along the row, which depend on one another. A row that
        # rises by at most 1 a step is then the running minimum of candidate - j, plus j.
        candidate = row + 1
        diagonal = row[:, :-1] + (hypotheses[:, u, None] != references)
        candidate[:, 1:] = torch.minimum(candidate[:, 1:], diagonal)
        moved = (candidate - positions).cummin(dim=1).values + positions
        row = torch.where(inside[:, u, None], moved, row)
    return row.gather(1, reference_lengths.to(device)[:, None]).squeeze(1)


class EditDistance(torch.nn.Module):
    """`edit_distance` with its options.

    Called with (hypotheses (B, U), references (B, R), hypothesis_lengths (B,), reference_lengths (B,)). A measure, and
    with reduction="none" the inner loss of `ExpectedLoss`; nothing to train on by itself.
    """

    def __init__(self, *, label_map: LabelMap | None = None, reduction: str = "batch") -> None:
        super().__init__()
        check_reduction(reduction, allowed=_REDUCTIONS)
        if label_map is not None:
            label_table(label_map)
        self.label_map = label_map
        self.reduction = reduction

    def forward(
        self,
        hypotheses: torch.Tensor,
        references: torch.Tensor,
        hypothesis_lengths: torch.Tensor,
        reference_lengths: torch.Tensor,
    ) -> torch.Tensor:
        return edit_distance(
            hypotheses, references, hypothesis_lengths, reference_lengths, label_map=self.label_map,
            reduction=self.reduction,
        )  # fmt: skip

    def extra_repr(self) -> str:
        mapped = "" if self.label_map is None else f"label_map of {len(self.label_map)} labels, "
        return f"{mapped}reduction={self.reduction!r}"
