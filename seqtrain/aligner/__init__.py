"""The client of the aligner service: automata and alignments of named segments from another process.

Needs the extra `bridge` (grpcio, protobuf). Only `seqtrain.aligner.v1`, the wire format, is shared with the
server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqtrain.aligner.client import (
        AlignerClient,
        AlignmentBatch,
        PartialAutomata,
    )
    from seqtrain.aligner.scored import LossBatch
    from seqtrain.aligner.v1.credentials import Credentials

__all__ = ["AlignerClient", "AlignmentBatch", "Credentials", "LossBatch", "PartialAutomata"]


def __getattr__(name: str) -> object:
    # On first use, so that the server, which needs the wire format only, doesn't load the client.
    if name in __all__:
        from seqtrain.aligner import client, scored
        from seqtrain.aligner.v1 import credentials

        module = {"Credentials": credentials, "LossBatch": scored}.get(name, client)
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
