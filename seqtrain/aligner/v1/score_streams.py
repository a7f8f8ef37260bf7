"""The streams of scores and signals, whose data go past protobuf.

Python's protobuf takes many times as long to write a message of 1 MiB as copying it would, and its reading copies
twice. The bytes on the wire are the same: a message that has field 2, of the type bytes, alone is the byte 0x12, the
length (seven bits a byte, the lowest first; the high bit says that another byte follows), and the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc

from seqtrain.aligner.v1 import aligner_pb2, aligner_pb2_grpc

__all__ = [
    "Data",
    "align_call",
    "compute_losses_call",
    "parse_part",
    "serialize_part",
    "serve_score_streams",
]

_SERVICE = "seqtrain.aligner.v1.Aligner"
_TAG = 0x12
_LONGEST_VARINT = 5

Message = TypeVar(
    "Message", aligner_pb2.AlignRequest, aligner_pb2.ComputeLossesRequest, aligner_pb2.ComputeLossesResponse
)


@dataclass(frozen=True)
class Data:
    """A message of a stream that has data, as AlignRequest, ComputeLossesRequest and ComputeLossesResponse have."""

    data: memoryview | bytes

    def WhichOneof(self, _: str) -> str:  # noqa: N802  # the name is protobuf's
        """As that of the message."""
        return "data"


def serialize_part(message: Any) -> bytes:
    """The bytes of a message of a stream: `Data`, or protobuf's own."""
    if not isinstance(message, Data):
        return cast(bytes, message.SerializeToString())
    prefix = bytearray([_TAG])
    length = len(message.data)
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return b"".join((prefix, message.data))


def parse_part(kind: type[Message]) -> Callable[[bytes], Message | Data]:
    """What reads the messages of a stream: data alone become `Data`, a view of what came; protobuf reads all else."""

    def parse(raw: bytes) -> Message | Data:
        begin = _data_begin(raw)
        return kind.FromString(raw) if begin is None else Data(memoryview(raw)[begin:])

    return parse


def _data_begin(raw: bytes) -> int | None:
    """Where the data begin of a message that has nothing else, or None."""
    if raw[:1] != bytes([_TAG]):
        return None
    length = 0
    for place, byte in enumerate(raw[1 : 1 + _LONGEST_VARINT]):
        length |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            begin = place + 2
            return begin if begin + length == len(raw) else None
    return None


def align_call(channel: grpc.Channel) -> Callable[..., Iterator[aligner_pb2.AlignResponse]]:
    """Align of the stub, for requests that may be `Data`."""
    return channel.stream_stream(
        f"/{_SERVICE}/Align",
        request_serializer=serialize_part,
        response_deserializer=aligner_pb2.AlignResponse.FromString,
    )


def compute_losses_call(
    channel: grpc.Channel,
) -> Callable[..., Iterator[aligner_pb2.ComputeLossesResponse | Data]]:
    """ComputeLosses of the stub, for requests and responses that may be `Data`."""
    return channel.stream_stream(
        f"/{_SERVICE}/ComputeLosses",
        request_serializer=serialize_part,
        response_deserializer=parse_part(aligner_pb2.ComputeLossesResponse),
    )


def serve_score_streams(servicer: aligner_pb2_grpc.AlignerServicer, server: grpc.Server) -> None:
    """Adds Align and ComputeLosses to a server, to be called before the whole service is added: the first handler of a
    method counts.
    """
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Align": grpc.stream_stream_rpc_method_handler(
            servicer.Align,
            request_deserializer=parse_part(aligner_pb2.AlignRequest),
            response_serializer=aligner_pb2.AlignResponse.SerializeToString,
        ),
        "ComputeLosses": grpc.stream_stream_rpc_method_handler(
            servicer.ComputeLosses,
            request_deserializer=parse_part(aligner_pb2.ComputeLossesRequest),
            response_serializer=serialize_part,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
