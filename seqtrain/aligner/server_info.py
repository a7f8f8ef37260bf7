"""What a server says about itself."""

from __future__ import annotations

from dataclasses import dataclass

from seqtrain.aligner.v1 import aligner_pb2

__all__ = ["ServerInfo"]


@dataclass(frozen=True)
class ServerInfo:
    """Identity, capabilities and limits of a server.

    `capabilities` are names such as "automata_by_segment", "alignments". `config_digest` and `inventory_etag`
    change when automata or labels do; `host_id` is equal for processes of one running machine, `instance_id`
    changes from one start of the server to the next. Lengths are in bytes of UTF-8.
    """

    server_version: str
    backend: str
    capabilities: frozenset[str]
    max_batch: int
    max_name_length: int
    max_orthography_length: int
    max_concurrent_calls: int
    max_request_bytes: int
    config_digest: str
    inventory_etag: str
    host_id: str
    instance_id: str

    @classmethod
    def from_message(cls, message: aligner_pb2.GetServerInfoResponse) -> ServerInfo:
        """The server info of an answer. Capabilities that this version doesn't know are left out."""
        names = {number: name for name, number in aligner_pb2.Capability.items()}
        limits = message.limits
        return cls(
            server_version=message.server_version,
            backend=message.backend,
            capabilities=frozenset(
                names[number].removeprefix("CAPABILITY_").lower()
                for number in message.capabilities
                if number in names
            ),
            max_batch=limits.max_batch,
            max_name_length=limits.max_name_length,
            max_orthography_length=limits.max_orthography_length,
            max_concurrent_calls=limits.max_concurrent_calls,
            max_request_bytes=limits.max_request_bytes,
            config_digest=message.config_digest,
            inventory_etag=message.inventory_etag,
            host_id=message.host_id,
            instance_id=message.instance_id,
        )
