"""The one table from the status of an rpc to the error that the client raises."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from seqtrain.errors import AlignerError, AlignerMismatchError, AlignerTimeoutError, AlignerUnavailableError

__all__ = ["OUTCOMES", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What the client does on a status: the error it raises, whether it first tries again, what it
    advises.
    """

    error: type[AlignerError]
    advice: str
    retried: bool = False


_BUG = "this is a bug in the server or the client; the server's log says more"
_VERSIONS = "client and server are of versions that don't fit"

OUTCOMES: dict[grpc.StatusCode, Outcome] = {
    grpc.StatusCode.OK: Outcome(AlignerError, _BUG),
    grpc.StatusCode.UNAVAILABLE: Outcome(
        AlignerUnavailableError, "is the service running? see: sprint-bridge ping ADDRESS", retried=True
    ),
    grpc.StatusCode.DEADLINE_EXCEEDED: Outcome(
        AlignerTimeoutError, "the service hangs or is overloaded; pass a longer timeout if it is only slow"
    ),
    # The client itself cancels only on close(). From the server it means that its time to drain was over.
    grpc.StatusCode.CANCELLED: Outcome(
        AlignerUnavailableError, "the service was stopped during the call", retried=True
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: Outcome(
        AlignerError, "too many calls at once or too large a message; use smaller batches or raise the limits"
    ),
    grpc.StatusCode.INVALID_ARGUMENT: Outcome(AlignerError, "the server refuses the request as malformed"),
    grpc.StatusCode.FAILED_PRECONDITION: Outcome(
        AlignerMismatchError, "the server's configuration doesn't allow this"
    ),
    grpc.StatusCode.UNIMPLEMENTED: Outcome(AlignerError, "this server doesn't offer it"),
    grpc.StatusCode.UNAUTHENTICATED: Outcome(AlignerError, "the server doesn't accept this caller"),
    grpc.StatusCode.PERMISSION_DENIED: Outcome(AlignerError, "the server doesn't allow this to this caller"),
    grpc.StatusCode.UNKNOWN: Outcome(AlignerError, _BUG),
    grpc.StatusCode.INTERNAL: Outcome(AlignerError, _BUG),
    grpc.StatusCode.DATA_LOSS: Outcome(AlignerError, _BUG),
    grpc.StatusCode.ABORTED: Outcome(AlignerError, _VERSIONS),
    grpc.StatusCode.ALREADY_EXISTS: Outcome(AlignerError, _VERSIONS),
    grpc.StatusCode.NOT_FOUND: Outcome(AlignerError, _VERSIONS),
    grpc.StatusCode.OUT_OF_RANGE: Outcome(AlignerError, _VERSIONS),
}
