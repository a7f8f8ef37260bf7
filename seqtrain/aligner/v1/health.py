"""Asking grpc.health.v1 whether a server is ready."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2

__all__ = ["SERVICE", "is_serving"]

SERVICE = "seqtrain.aligner.v1.Aligner"


def is_serving(channel: grpc.Channel, *, timeout: float) -> bool:
    """Whether the aligner service is loaded and takes calls.

    Raises:
        grpc.RpcError: the server wasn't reached, or didn't answer within `timeout` seconds.
    """
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    answer = check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=timeout)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
