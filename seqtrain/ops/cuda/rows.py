"""Launches of the row passes (csrc/cuda/rows.h) that every recursion shares."""

from __future__ import annotations

from typing import NamedTuple

import torch

from seqtrain.ops import arguments
from seqtrain.ops.cuda.frames import Frames
from seqtrain.ops.cuda.runtime import LARGEST_BLOCK, Argument, Runtime

__all__ = ["Emissions", "Rows", "dtype_code", "strides", "suffix"]

_DTYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}
_MOST_ROW_BLOCKS = 1 << 20
_WORKSPACE_BLOCKS = 1024
_PIECE_BYTES = 16  # what a thread reads at once (csrc/cuda/storage.h)
_WARP, _WARPS_OF_BLOCK = 32, 8
# Of a warp, of which no row has more than it needs to be read: then fewer wait for each other. To write it, a warp
# stores its pieces at once: rows that take turns in a processor write slower than those that go by one after the other.
_PIECES_OF_READER, _PIECES_OF_WRITER, _COLUMNS_OF_WARP = 64 * _WARP, 4 * _WARP, 16 * _WARP
_SUMMARY_BYTES = 3 * 8 * (LARGEST_BLOCK // _WARP)
_VALUE_THREADS = 128  # always: a sum's order doesn't depend on the other utterances
_NOTHING: dict[str, Argument] = dict.fromkeys(
    (
        "scores", "gradient", "column_labels", "following", "normalizer", "emission", "emission_exponent", "row_log",
        "row_status", "log_likelihood", "value", "status", "weight", "occupancies", "workspace",
        "gradient_stride_utterance", "gradient_stride_frame", "gradient_stride_label",
    )
)  # fmt: skip


def suffix(dtype: torch.dtype) -> str:
    """End of a kernel's name, for its type of arithmetic."""
    return "float64" if dtype == torch.float64 else "float32"


def dtype_code(dtype: torch.dtype) -> int:
    """What the kernels call a type that is stored (csrc/cuda/rows.h)."""
    return _DTYPES[dtype]


class Emissions(NamedTuple):
    """Of each row: mantissas and exponents of its columns (rows, K), what was taken out, and whether it's usable."""

    mantissa: torch.Tensor
    exponent: torch.Tensor
    row_log: torch.Tensor
    row_status: torch.Tensor


def strides(tensor: torch.Tensor) -> tuple[int, int, int]:
    """Of utterances (0 where rows are packed), of frames and of labels, in elements."""
    stride = tensor.stride()
    return (stride[0], stride[1], stride[2]) if tensor.dim() == 3 else (0, stride[0], stride[1])


class _Crews(NamedTuple):
    """Who works on the rows: one block on each, or one of its warps."""

    blocks: int
    threads: int
    warp_a_row: bool


def _threads_of_row(pieces: int, of_warp: int, columns: int) -> int:
    """Of the row's size alone, so that the bits of an utterance don't depend on the batch."""
    warps = max(-(-pieces // of_warp), -(-columns // _COLUMNS_OF_WARP), 1)
    return min(warps * _WARP, LARGEST_BLOCK)


def _crews(rows: int, threads_of_row: int, most_blocks: int = _MOST_ROW_BLOCKS) -> _Crews:
    if threads_of_row > _WARP:
        return _Crews(min(rows, most_blocks), threads_of_row, False)
    return _Crews(min(-(-rows // _WARPS_OF_BLOCK), most_blocks), _WARP * _WARPS_OF_BLOCK, True)


class Rows:
    """The rows of a batch, padded (B, T, V) or packed (ΣT, V), and the columns that its recursion reads.

    `like` gives shape, dtype and strides; `column_labels` is (B or 1, K) int64 on the device, -1 past the last.
    """

    def __init__(
        self,
        runtime: Runtime,
        like: torch.Tensor,
        frames: Frames,
        column_labels: torch.Tensor,
        *,
        shared_columns: bool,
        normalize: bool,
    ) -> None:
        self.runtime = runtime
        self.lengths, self.offsets, longest = frames
        self.batch = self.lengths.shape[0]
        self.count = like.shape[:-1].numel()
        self.max_frames = like.shape[1] if self.offsets is None else longest
        self.width = column_labels.shape[1]
        self.suffix = suffix(like.dtype)
        utterance, frame, label = strides(like)
        self._common: dict[str, Argument] = {
            **_NOTHING,
            "dtype": dtype_code(like.dtype),
            "stride_utterance": utterance,
            "stride_frame": frame,
            "stride_label": label,
            "offsets": self.offsets,
            "batch": self.batch,
            "labels": like.shape[-1],
            "max_frames": self.max_frames,
            "width": self.width,
            "shared_columns": shared_columns,
            "column_labels": column_labels,
            "lengths": self.lengths,
            "normalize": normalize,
            "value_sign": 1.0,
            "occupancy_sign": 1.0,
        }
        pieces = -(-like.shape[-1] * like.element_size() // _PIECE_BYTES)
        self._emission_threads = _threads_of_row(pieces if normalize else 0, _PIECES_OF_READER, self.width)
        self._gradient_threads = _threads_of_row(pieces, _PIECES_OF_WRITER, self.width)

    def _launch(
        self,
        kernel: str,
        blocks: int,
        threads: int,
        shared: int = 0,
        /,
        *,
        warp_a_row: bool = False,
        **fields: Argument,
    ) -> None:
        fields = {**self._common, **fields, "warp_a_row": warp_a_row}
        self.runtime.launch(kernel, "RowsProblem", blocks, threads, shared, **fields)

    @property
    def _all(self) -> int:
        return min(self.batch * self.max_frames, self.count)

    @property
    def row_blocks(self) -> int:
        """Blocks of a launch with one for each row; each goes over several where there are more."""
        return min(self._all, _MOST_ROW_BLOCKS)

    def emissions(
        self, scores: torch.Tensor, status: torch.Tensor, normalizer: torch.Tensor | None
    ) -> Emissions:
        """Reads all scores once to normalize, and those of the columns, the last ones once and the others twice."""
        real = arguments.arithmetic_dtype(scores)
        device = self.runtime.device
        found = Emissions(
            torch.empty((self.count, self.width), dtype=real, device=device),
            torch.empty((self.count, self.width), dtype=torch.int32, device=device),
            torch.empty(self.count, dtype=torch.float64, device=device),
            torch.empty(self.count, dtype=torch.int32, device=device),
        )
        blocks, threads, warp_a_row = _crews(self._all, self._emission_threads)
        self._launch(
            f"emissions_{self.suffix}", blocks, threads, 0 if warp_a_row else _SUMMARY_BYTES, warp_a_row=warp_a_row,
            scores=scores, status=status, normalizer=normalizer, emission=found.mantissa,
            emission_exponent=found.exponent, row_log=found.row_log, row_status=found.row_status,
        )  # fmt: skip
        return found

    def values(
        self, emissions: Emissions, log_likelihood: torch.Tensor, status: torch.Tensor, *, sign: float
    ) -> torch.Tensor:
        """(B,) float64 sign · log-likelihood; writes to `status` what went wrong."""
        value = torch.zeros(self.batch, dtype=torch.float64, device=self.runtime.device)
        self._launch(
            "values", self.batch, _VALUE_THREADS,
            row_log=emissions.row_log, row_status=emissions.row_status, log_likelihood=log_likelihood,
            value_sign=sign, value=value, status=status,
        )  # fmt: skip
        return value

    def gradient(
        self,
        gradient: torch.Tensor,
        scores: torch.Tensor | None,
        occupancies: torch.Tensor,
        normalizer: torch.Tensor | None,
        weight: torch.Tensor,
        status: torch.Tensor,
        *,
        following: torch.Tensor | None,
        sign: float,
    ) -> None:
        """Writes weight · (softmax where normalized + sign · occupancies), each element once but for the columns.

        `following` (B, K) int32 names columns with one label (csrc/cuda/rows.h); None where labels are distinct.
        """
        needed = self.width * (8 if self.suffix == "float64" else 4)
        blocks, threads, warp_a_row = _crews(self._all, self._gradient_threads)
        of_block = needed * (threads // _WARP if warp_a_row else 1)
        if not self.runtime.fits(of_block):
            blocks = min(blocks, _WORKSPACE_BLOCKS)
        workspace = self.runtime.workspace(blocks, of_block)
        utterance, frame, label = strides(gradient)
        own = {} if scores is None else dict(
            zip(("stride_utterance", "stride_frame", "stride_label"), strides(scores), strict=True)
        )  # fmt: skip
        self._launch(
            f"gradient_{self.suffix}", blocks, threads, of_block if workspace is None else 0, warp_a_row=warp_a_row,
            gradient=gradient, gradient_stride_utterance=utterance, gradient_stride_frame=frame,
            gradient_stride_label=label, scores=scores, occupancies=occupancies, normalizer=normalizer,
            weight=weight, status=status, following=following, occupancy_sign=sign, workspace=workspace, **own,
        )  # fmt: skip
