"""A batch of automata as the message that carries it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seqtrain.aligner.v1 import aligner_pb2
from seqtrain.aligner.v1.packed_array import pack
from seqtrain.fsa import FsaBatch

__all__ = ["automata_message"]


def automata_message(
    batch: FsaBatch,
    statuses: Sequence[aligner_pb2.ItemStatus],
    *,
    inventory_etag: str,
    config_digest: str,
    request_id: int = 0,
) -> aligner_pb2.GetAutomataResponse:
    """The automata of those items whose status is OK, in order, with the status of every item."""
    return aligner_pb2.GetAutomataResponse(
        request_id=request_id,
        inventory_etag=inventory_etag,
        config_digest=config_digest,
        statuses=statuses,
        num_states=pack(batch.num_states.numpy()),
        starts=pack(batch.starts.numpy()),
        num_arcs=pack(np.diff(batch.arc_offsets.numpy())),
        arcs=pack(batch.arcs.numpy()),
        weights=pack(batch.weights.numpy()),
        num_finals=pack(np.diff(batch.final_offsets.numpy())),
        final_states=pack(batch.final_states.numpy()),
        final_weights=pack(batch.final_weights.numpy()),
    )
