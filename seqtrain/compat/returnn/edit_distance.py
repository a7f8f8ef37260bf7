"""RETURNN's `edit_distance`."""

from __future__ import annotations

import torch

from seqtrain.compat.returnn.base import Batch, SequenceLoss
from seqtrain.compat.returnn.ctc import ctc_logits, padded_labels
from seqtrain.compat.returnn.options import Option
from seqtrain.decoding.ctc_prefix_beam import ctc_prefix_beam
from seqtrain.errors import ShapeError
from seqtrain.losses.edit_distance import edit_distance

__all__ = ["EditDistance", "hypotheses_of"]


def hypotheses_of(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, U) labels and lengths of a sparse output.

    Raises:
        ShapeError: the output isn't sparse.
    """
    output = batch.layer.output
    if output.is_floating_point() or output.dim() != 2 or batch.layer.lengths is None:
        raise ShapeError(
            f"the output must be (B, U) integer labels with lengths, got {output.dtype} {tuple(output.shape)}",
            argument="layer",
        )
    return output, batch.layer.lengths


class EditDistance(SequenceLoss):
    """Levenshtein distance of the output's labels, or of what CTC decodes, to the targets: an error without a value."""

    class_name = "edit_distance"
    needs_time = True
    native = "`edit_distance`, `decoding.ctc_prefix_beam`"
    options = (
        Option("debug_print", False, "", "accepted, prints nothing"),
        Option("label_map", None, "`label_map=`"),
        Option(
            "ctc_decode",
            False,
            "`decoding.ctc_prefix_beam`",
            "fails in RETURNN with TensorFlow 2; works here",
        ),
        Option("output_in_log_space", False, "`normalize=`"),
    )

    def value(self, batch: Batch) -> torch.Tensor | None:
        return None

    def error(self, batch: Batch) -> torch.Tensor:
        targets, target_lengths = batch.sequence_targets()
        if self.option("ctc_decode"):
            z = ctc_logits(batch.layer, in_log_space=bool(self.option("output_in_log_space"))).detach()
            decoded = ctc_prefix_beam(z, batch.frames.lengths, blank=z.shape[-1] - 1)
            hypotheses, lengths = padded_labels(decoded)
        else:
            hypotheses, lengths = hypotheses_of(batch)
        return edit_distance(hypotheses, targets, lengths, target_lengths, label_map=self._label_map())

    def _label_map(self) -> dict[int, int | None] | None:
        given = self.option("label_map")
        # A config that went through JSON has text for keys.
        return None if given is None else {int(old): new for old, new in given.items()}
