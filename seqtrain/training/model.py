"""The acoustic model: a small residual convolutional network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from seqtrain.errors import ArgumentError
from seqtrain.training.dropout import ByteDropout

__all__ = ["ConvAcousticModel"]


class ConvAcousticModel(nn.Module):
    """Strided convolution, residual dilated convolutions, 1×1 output: features (B, T, F) to logits (B, T',
    V).

    Dense convolutions are what a CPU is fast at, and faster with a frame's channels side by side in memory;
    torch keeps that layout for images only, so a signal is an image of height 1 here. With stride 3 on 10 ms
    features an output frame is 30 ms. Frames past an utterance's length are set to zero after every layer, so
    that in evaluation an utterance's logits don't depend on what it was batched with.
    """

    def __init__(
        self,
        *,
        num_features: int,
        num_labels: int,
        width: int = 256,
        kernel: int = 7,
        stride: int = 3,
        dilations: Sequence[int] = (1, 1, 2, 3, 3, 3),
        dropout: float = 0.15,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ArgumentError(f"kernel is {kernel}; it must be odd", argument="kernel")
        self.stride = stride
        self.front = nn.Sequential(
            nn.Conv2d(
                num_features, width, (1, kernel), stride=(1, stride), padding=(0, kernel // 2), bias=False
            ),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, (1, 3), padding=(0, dilation), dilation=(1, dilation), bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                ByteDropout(dropout),
            )
            for dilation in dilations
        )
        self.output = nn.Linear(width, num_labels)

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Output frames (B,) for `lengths` (B,) input frames: ceil(T / stride)."""
        return torch.div(lengths + self.stride - 1, self.stride, rounding_mode="floor")

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, T', V), unnormalized, and their lengths (B,), for features (B, T, F) with `lengths`
        (B,)."""
        lengths = self.output_lengths(lengths)
        # (B, F, 1, T) without a copy, and in the layout that channels_last means.
        hidden = self.front(features.transpose(1, 2).unsqueeze(2))
        mask = (torch.arange(hidden.shape[3], device=hidden.device) < lengths[:, None])[:, None, None, :]
        hidden = hidden * mask
        for block in self.blocks:
            hidden = (hidden + block(hidden)) * mask
        return self.output(hidden.squeeze(2).transpose(1, 2)), lengths

    if TYPE_CHECKING:

        def __call__(
            self, features: torch.Tensor, lengths: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]: ...
