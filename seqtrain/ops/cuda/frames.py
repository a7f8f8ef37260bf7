"""How many frames each utterance has, as the kernels read it: looked at in host memory, or in a capture not at all."""

from __future__ import annotations

from typing import NamedTuple

import torch

from seqtrain.capture import check_readable, is_capturing
from seqtrain.ops import arguments
from seqtrain.ops.cuda.copies import to_device
from seqtrain.ops.cuda.runtime import Runtime

__all__ = ["Frames", "captured_frames", "checked_frames", "frames_again", "in_place"]


class Frames(NamedTuple):
    """Of a batch.

    Attributes:
        lengths: (B,) int64 on the device.
        offsets: (B + 1,) int64 on the device, of packed scores; None of padded ones.
        longest: no utterance has more frames.
    """

    lengths: torch.Tensor
    offsets: torch.Tensor | None
    longest: int


def checked_frames(on: Runtime, lengths: torch.Tensor, offsets: torch.Tensor | None) -> Frames:
    """Of int64 in host memory, checked before."""
    longest = int(lengths.max()) if lengths.numel() else 0
    return Frames(
        to_device(lengths, on.device), None if offsets is None else to_device(offsets, on.device), longest
    )


def in_place(on: Runtime, tensor: torch.Tensor, argument: str) -> torch.Tensor:
    """int64 on the device, for a capture: what replays read is what is in the tensor's memory then.

    Raises:
        CudaError: the tensor isn't there.
    """
    check_readable(tensor, on.device, argument)
    return tensor.to(torch.int64).contiguous()


def captured_frames(
    on: Runtime, like: torch.Tensor, lengths: torch.Tensor, offsets: torch.Tensor | None
) -> tuple[Frames, torch.Tensor]:
    """Of lengths and offsets on the device, for tensors like `like`; and (B,) status: what is amiss is BAD_INPUT.

    No row lies outside of `like`, whatever the replays bring: where offsets don't rise from 0 to the end, the first
    utterance has all rows.
    """
    lengths = in_place(on, lengths, "lengths")
    if offsets is None:
        limit = like.shape[1]
        fits = (lengths >= 0) & (lengths <= limit)
        frames = Frames(lengths, None, limit)
    else:
        offsets, rows = in_place(on, offsets, "offsets"), like.shape[0]
        rise = (offsets[0] == 0) & (offsets[-1] == rows) & (offsets.diff() >= 0).all()
        all_first = torch.full_like(offsets, rows)
        all_first[:1].zero_()
        offsets = torch.where(rise, offsets, all_first)
        fits = rise & (lengths == offsets.diff())
        frames = Frames(offsets.diff(), offsets, rows)
    return frames, torch.zeros_like(lengths).masked_fill_(fits.logical_not(), arguments.BAD_INPUT)


def frames_again(
    on: Runtime, like: torch.Tensor, lengths: torch.Tensor, offsets: torch.Tensor | None
) -> Frames:
    """For a gradient, of what the forward pass has checked."""
    if is_capturing(on.device):
        return captured_frames(on, like, lengths, offsets)[0]
    return checked_frames(on, arguments.int64(lengths), None if offsets is None else arguments.int64(offsets))
