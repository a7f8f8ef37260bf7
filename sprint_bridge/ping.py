"""How a service is."""

from __future__ import annotations

import time

import grpc

from seqtrain.aligner.v1 import aligner_pb2, aligner_pb2_grpc
from seqtrain.aligner.v1.credentials import Credentials
from seqtrain.aligner.v1.health import is_serving

__all__ = ["ping"]


def ping(target: str, *, timeout: float, credentials: Credentials | None = None) -> dict[str, object]:
    """Status ("serving", "not serving" or "unreachable") of the service at `target`, and what it says about
    itself.

    Ends within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    # An aligner is never behind a web proxy, whatever the environment says.
    given = credentials if credentials is not None else Credentials()
    with given.open(target, [("grpc.enable_http_proxy", 0)]) as channel:
        began = time.monotonic()
        try:
            if not is_serving(channel, timeout=timeout):
                return {"target": target, "status": "not serving"}
            latency = time.monotonic() - began
            info = aligner_pb2_grpc.AlignerStub(channel).GetServerInfo(
                aligner_pb2.GetServerInfoRequest(), timeout=max(deadline - time.monotonic(), 0.0)
            )
        except grpc.RpcError as error:
            details = error.details() if isinstance(error, grpc.Call) else str(error)
            return {"target": target, "status": "unreachable", "details": details}
    return {
        "target": target,
        "status": "serving",
        "latency_ms": round(1000 * latency, 3),
        "backend": info.backend,
        "server_version": info.server_version,
        "config_digest": info.config_digest,
        "inventory_etag": info.inventory_etag,
        "instance_id": info.instance_id,
        "host_id": info.host_id,
    }
