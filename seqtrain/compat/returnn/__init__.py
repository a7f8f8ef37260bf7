"""RETURNN's losses by its own configuration: `build_loss` takes a layer dict and gives the numbers that RETURNN gives.

    layer = {"class": "softmax", "loss": "ce", "loss_opts": {"focal_loss_factor": 2.0}}
    loss = seqtrain.compat.returnn.build_loss(layer)
    result = loss(logits, lengths, targets)  # value, error, norm_factor, objective
    result.objective.backward()

Quirks are kept; the table in docs/returnn.md says which, and what to use natively instead.
"""

from seqtrain.compat.returnn.base import Batch, LossResult, ReturnnLoss
from seqtrain.compat.returnn.fast_bw_layer import fast_bw_layer
from seqtrain.compat.returnn.layer_output import LayerOutput
from seqtrain.compat.returnn.loss_layer import loss_layer
from seqtrain.compat.returnn.registry import CLASSES, build_loss

__all__ = [
    "CLASSES",
    "Batch",
    "LayerOutput",
    "LossResult",
    "ReturnnLoss",
    "build_loss",
    "fast_bw_layer",
    "loss_layer",
]
