"""The frames of a batch that count, packed for criteria that are a sum over frames.

What lies past an utterance's end never enters a computation: it may hold anything, NaN included, and gets gradient 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from seqtrain.errors import DeviceError, DtypeError, LabelError, NonFiniteScoresError, ShapeError
from seqtrain.losses.reduction import reduce
from seqtrain.scores import FLOATS, INTEGERS, Scores, host_integers, split_scores

__all__ = ["Frames", "frames_of", "widened"]


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in the precision that criteria compute in: float32 at least."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


@dataclass(frozen=True)
class Frames:
    """Which frames count. N is their number; they are ordered by utterance, then by time.

    Attributes:
        lengths: (B,) int64 frames of each utterance, on the CPU.
        limit: T of the padded scores; of packed ones the longest length.
        packed: whether the batch's tensors are packed (ΣT, …) instead of padded (B, T, …).
        device: of the scores.
    """

    lengths: torch.Tensor
    limit: int
    packed: bool
    device: torch.device

    @property
    def batch(self) -> int:
        """B."""
        return self.lengths.shape[0]

    @property
    def full(self) -> bool:
        """Whether there is no padding."""
        return self.packed or bool((self.lengths == self.limit).all())

    def inside(self) -> torch.Tensor:
        """(B, T) bool, on the scores' device: true where a frame counts."""
        return (torch.arange(self.limit) < self.lengths[:, None]).to(self.device)

    def select(self, tensor: torch.Tensor, argument: str, *trailing: int | None) -> torch.Tensor:
        """(N, *trailing): those frames of (B, T, *trailing), or of packed (ΣT, *trailing), that count.

        Raises:
            ShapeError, DeviceError: the tensor isn't like the scores; a trailing size of None may be any.
        """
        leading = (int(self.lengths.sum()),) if self.packed else (self.batch, self.limit)
        wanted = (*leading, *trailing)
        fits = tensor.dim() == len(wanted) and all(
            want is None or want == have for want, have in zip(wanted, tensor.shape, strict=True)
        )
        if not fits:
            shape = ", ".join("any" if size is None else str(size) for size in wanted)
            raise ShapeError(
                f"{argument} must have shape ({shape}), like the scores, got {tuple(tensor.shape)}",
                argument=argument,
            )
        if tensor.device != self.device:
            raise DeviceError(
                f"{argument} is on {tensor.device}, the scores on {self.device}: move one to the other",
                argument=argument,
            )
        if self.packed:
            return tensor
        return tensor.flatten(0, 1) if self.full else tensor[self.inside()]

    def select_labels(self, tensor: torch.Tensor, argument: str, num_labels: int) -> torch.Tensor:
        """(N,) int64: the labels of the frames that count.

        Raises:
            ShapeError, DeviceError, DtypeError; LabelError for a label outside 0 … num_labels - 1: names utterance and
            frame.
        """
        if not isinstance(tensor, torch.Tensor):
            raise DtypeError(
                f"{argument} must be a torch.Tensor, got {type(tensor).__name__}", argument=argument
            )
        if tensor.dtype not in INTEGERS:
            raise DtypeError(f"{argument} must be integer labels, got {tensor.dtype}", argument=argument)
        labels = self.select(tensor, argument).long()
        outside = (labels < 0) | (labels >= num_labels)
        if bool(outside.any()):
            row = int(outside.nonzero()[0])
            b, t = self.locate(row)
            label = int(labels[row])
            raise LabelError(
                f"{argument} of utterance {b} hold {label} at frame {t}, which is not a column of the scores: those "
                f"have {num_labels} labels, 0 … {num_labels - 1}",
                argument=argument, utterance=b, position=t, label=label, num_labels=num_labels,
            )  # fmt: skip
        return labels

    def locate(self, row: int) -> tuple[int, int]:
        """(utterance, frame) of a row of what `select` returns."""
        ends = self.lengths.cumsum(0)
        utterance = int(torch.searchsorted(ends, row, right=True))
        return utterance, row - int(ends[utterance] - self.lengths[utterance])

    def check_finite(self, rows: torch.Tensor, argument: str, *, minus_inf: bool = False) -> None:
        """Raises NonFiniteScoresError where rows (N, …) hold NaN or an infinity; -inf, a probability of 0, may be
        legal.
        """
        good = torch.isfinite(rows) if not minus_inf else ~(torch.isnan(rows) | torch.isposinf(rows))
        if bool(good.all()):
            return
        row = int((~good.flatten(1).all(dim=1) if good.dim() > 1 else ~good).nonzero()[0])
        b, t = self.locate(row)
        what = "NaN or +inf" if minus_inf else "NaN or an infinity"
        raise NonFiniteScoresError(
            f"{argument} of utterance {b} hold {what} at frame {t}", argument=argument, utterance=b, frame=t
        )

    def spread(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, T), zero past the end, of one value (N,) a frame."""
        if self.full and not self.packed:
            return rows.reshape(self.batch, self.limit)
        return rows.new_zeros(self.batch, self.limit).masked_scatter(self.inside(), rows)

    def reduce(self, losses: torch.Tensor, reduction: str) -> torch.Tensor:
        """Losses (N,) reduced by one of `FRAME_REDUCTIONS`; "per_frame" is (B, T), packed (ΣT,)."""
        if reduction == "per_frame":
            return losses if self.packed else self.spread(losses)
        # Summed by rows of a rectangle: adding to an index would be atomic, and in any order, on a GPU.
        return reduce(self.spread(losses).sum(dim=1), reduction, lengths=self.lengths)


def frames_of(
    scores: Scores, lengths: torch.Tensor | None, *, argument: str = "scores"
) -> tuple[torch.Tensor, Frames]:
    """The frames that count, (N, F) in the scores' dtype, and which those are.

    Args:
        scores: (B, T, F) or `Packed` (ΣT, F), float16 … float64, any device.
        lengths: (B,) int; None: all frames count.
        argument: name for messages.

    Raises:
        ShapeError, DtypeError: not of that shape or kind; a length outside 0 … T, or unlike the offsets.
    """
    values, offsets = split_scores(scores)
    if not isinstance(values, torch.Tensor):
        raise DtypeError(f"{argument} must be a torch.Tensor, got {type(values).__name__}", argument=argument)
    packed = offsets is not None
    if values.dim() != (2 if packed else 3) or values.shape[-1] < 1:
        expected = "(ΣT, F), F ≥ 1" if packed else "(B, T, F), F ≥ 1"
        raise ShapeError(
            f"{argument} must have shape {expected}, got {tuple(values.shape)}", argument=argument
        )
    if values.dtype not in FLOATS:
        raise DtypeError(
            f"{argument} must be float16, bfloat16, float32 or float64, got {values.dtype}", argument=argument
        )
    given = None
    if offsets is not None:
        given = offsets[1:] - offsets[:-1]
        if bool((given < 0).any()) or int(offsets[0]) != 0 or int(offsets[-1]) != values.shape[0]:
            raise ShapeError(
                f"offsets must rise from 0 to the {values.shape[0]} rows of {argument}, got {offsets.tolist()!s:.100}",
                argument="offsets",
            )
    batch = values.shape[0] if given is None else given.shape[0]
    if lengths is None:
        counted = torch.full((batch,), values.shape[1], dtype=torch.int64) if given is None else given
    else:
        counted = host_integers(lengths, "lengths", (batch,)).long()
    if given is not None and not torch.equal(counted, given):
        b = int((counted != given).nonzero()[0])
        raise ShapeError(
            f"lengths[{b}] = {int(counted[b])}, but the packed {argument} have {int(given[b])} frames there",
            argument="lengths",
        )
    limit = values.shape[1] if given is None else int(given.max()) if batch else 0
    bad = (counted < 0) | (counted > limit)
    if bool(bad.any()):
        b = int(bad.nonzero()[0])
        raise ShapeError(
            f"lengths[{b}] = {int(counted[b])} must lie in 0 … {limit}, the frames of {argument}",
            argument="lengths",
        )
    frames = Frames(counted, limit, packed, values.device)
    return frames.select(values, argument, values.shape[-1]), frames
