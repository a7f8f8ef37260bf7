"""RETURNN's `deep_clustering`."""

from __future__ import annotations

import torch

from seqtrain.compat.returnn.base import Batch, SequenceLoss
from seqtrain.compat.returnn.options import REQUIRED, Option
from seqtrain.losses.deep_clustering import deep_clustering

__all__ = ["DeepClustering"]


class DeepClustering(SequenceLoss):
    """Affinity of embeddings against that of sources."""

    class_name = "deep_clustering"
    needs_time = True
    native = "`deep_clustering`"
    options = (
        Option("embedding_dimension", REQUIRED, "`embedding_dimension=`"),
        Option("nr_of_sources", REQUIRED, "`num_sources=`"),
    )
    notes = ("Cannot be built in RETURNN as released; this is the intended formula.",)

    def value(self, batch: Batch) -> torch.Tensor:
        return deep_clustering(
            batch.layer.output,
            batch.required_targets(),
            batch.frames.lengths,
            embedding_dimension=int(self.option("embedding_dimension")),
            num_sources=int(self.option("nr_of_sources")),
        )

    def error(self, batch: Batch) -> torch.Tensor | None:
        return None
