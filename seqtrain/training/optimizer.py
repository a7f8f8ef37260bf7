"""The optimizer of the recipes."""

from __future__ import annotations

import torch
from torch import nn

from seqtrain.torch_versions import FUSED

__all__ = ["adamw"]


def adamw(model: nn.Module, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices and convolution kernels, but neither biases nor normalization parameters."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=learning_rate,
        **FUSED,
    )
