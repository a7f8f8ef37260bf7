"""The aligner service: messages in, an engine's answers out."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import grpc
import numpy as np

from seqtrain.aligner.v1 import aligner_pb2, aligner_pb2_grpc
from seqtrain.aligner.v1.packed_array import pack
from seqtrain.errors import OutOfVocabularyError, SeqtrainError, UnknownSegmentError
from sprint_bridge.backends.base import Backend, Capability, Orthography, Segment
from sprint_bridge.config import Limits

__all__ = ["AlignerService"]

_CAPABILITIES = {
    Capability.AUTOMATA_BY_SEGMENT: aligner_pb2.CAPABILITY_AUTOMATA_BY_SEGMENT,
    Capability.AUTOMATA_BY_ORTHOGRAPHY: aligner_pb2.CAPABILITY_AUTOMATA_BY_ORTHOGRAPHY,
    Capability.ALIGNMENTS: aligner_pb2.CAPABILITY_ALIGNMENTS,
}
# Well below the 4 MiB that a client takes in one message by default.
_LABELS_PER_MESSAGE = 4096
_FRAMES_PER_MESSAGE = 1 << 18


class AlignerService(aligner_pb2_grpc.AlignerServicer):
    """Answers the rpcs of `aligner.proto`; unavailable until `backend` is set."""

    def __init__(self, limits: Limits) -> None:
        self.backend: Backend | None = None
        self._limits = limits
        self._instance_id = uuid.uuid4().hex
        self._host_id = _host_id()
        self._version = _version()

    def GetServerInfo(  # noqa: N802  # the name is the protocol's
        self, request: aligner_pb2.GetServerInfoRequest, context: grpc.ServicerContext
    ) -> aligner_pb2.GetServerInfoResponse:
        backend = self._loaded(context)
        limits = self._limits
        return aligner_pb2.GetServerInfoResponse(
            server_version=self._version,
            backend=backend.name,
            capabilities=sorted(_CAPABILITIES[capability] for capability in backend.capabilities),
            limits=aligner_pb2.Limits(
                max_batch=limits.max_batch,
                max_name_length=limits.max_name_length,
                max_orthography_length=limits.max_orthography_length,
                max_concurrent_calls=limits.max_concurrent_calls,
                max_request_bytes=limits.max_request_bytes,
            ),
            config_digest=backend.config_digest,
            inventory_etag=backend.inventory.etag,
            host_id=self._host_id,
            instance_id=self._instance_id,
        )

    def GetLabelInventory(  # noqa: N802  # the name is the protocol's
        self, request: aligner_pb2.GetLabelInventoryRequest, context: grpc.ServicerContext
    ) -> Iterator[aligner_pb2.GetLabelInventoryResponse]:
        backend = self._loaded(context)
        inventory = backend.inventory
        header = aligner_pb2.LabelInventoryHeader(
            num_labels=len(inventory),
            silence=inventory.silence,
            blank=inventory.blank,
            inventory_etag=inventory.etag,
            config_digest=backend.config_digest,
        )
        yield aligner_pb2.GetLabelInventoryResponse(header=header)
        for begin in range(0, len(inventory), _LABELS_PER_MESSAGE):
            yield aligner_pb2.GetLabelInventoryResponse(
                labels=inventory.labels[begin : begin + _LABELS_PER_MESSAGE]
            )

    def GetAutomata(  # noqa: N802  # the name is the protocol's
        self, request: aligner_pb2.GetAutomataRequest, context: grpc.ServicerContext
    ) -> aligner_pb2.GetAutomataResponse:
        backend = self._loaded(context)
        self._check_batch(len(request.items), context)
        items = [self._item(index, item, context) for index, item in enumerate(request.items)]
        for kind, capability in (
            (Segment, Capability.AUTOMATA_BY_SEGMENT),
            (Orthography, Capability.AUTOMATA_BY_ORTHOGRAPHY),
        ):
            if capability not in backend.capabilities and any(isinstance(item, kind) for item in items):
                context.abort(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"the backend {backend.name} has no {capability.value.replace('_', ' ')}",
                )
        answer = backend.automata(items)
        batch = answer.automata
        return aligner_pb2.GetAutomataResponse(
            request_id=request.request_id,
            inventory_etag=backend.inventory.etag,
            config_digest=backend.config_digest,
            statuses=[_item_status(error) for error in answer.errors],
            num_states=pack(batch.num_states.numpy()),
            starts=pack(batch.starts.numpy()),
            num_arcs=pack(np.diff(batch.arc_offsets.numpy())),
            arcs=pack(batch.arcs.numpy()),
            weights=pack(batch.weights.numpy()),
            num_finals=pack(np.diff(batch.final_offsets.numpy())),
            final_states=pack(batch.final_states.numpy()),
            final_weights=pack(batch.final_weights.numpy()),
        )

    def GetAlignments(  # noqa: N802  # the name is the protocol's
        self, request: aligner_pb2.GetAlignmentsRequest, context: grpc.ServicerContext
    ) -> Iterator[aligner_pb2.GetAlignmentsResponse]:
        backend = self._loaded(context)
        if Capability.ALIGNMENTS not in backend.capabilities:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "the server was given no alignments")
        self._check_batch(len(request.segments), context)
        for index, segment in enumerate(request.segments):
            self._check_name(index, segment, context)
        answer = backend.alignments(request.segments)
        begin = 0
        while begin < len(request.segments):
            end, frames = begin, 0
            while end < len(request.segments) and (end == begin or frames < _FRAMES_PER_MESSAGE):
                frames += len(answer.labels[end])
                end += 1
            errors = answer.errors[begin:end]
            labels = [
                row for row, error in zip(answer.labels[begin:end], errors, strict=True) if error is None
            ]
            yield aligner_pb2.GetAlignmentsResponse(
                request_id=request.request_id,
                inventory_etag=backend.inventory.etag,
                config_digest=backend.config_digest,
                statuses=[_item_status(error) for error in errors],
                num_frames=pack(np.array([len(row) for row in labels], dtype=np.int64)),
                labels=pack(np.concatenate([np.zeros(0, dtype=np.int32), *labels])),
            )
            begin = end

    def _loaded(self, context: grpc.ServicerContext) -> Backend:
        if self.backend is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server is loading")
        return self.backend

    def _check_batch(self, size: int, context: grpc.ServicerContext) -> None:
        if not 1 <= size <= self._limits.max_batch:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"a batch of {size}; a batch has 1 to {self._limits.max_batch} items",
            )

    def _check_name(self, index: int, name: str, context: grpc.ServicerContext) -> None:
        length = len(name.encode("utf-8"))
        if not 1 <= length <= self._limits.max_name_length:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"item {index}: a name of {length} bytes; a name has 1 to {self._limits.max_name_length}",
            )

    def _item(
        self, index: int, item: aligner_pb2.ItemKey, context: grpc.ServicerContext
    ) -> Segment | Orthography:
        kind = item.WhichOneof("key")
        if kind == "segment":
            self._check_name(index, item.segment, context)
            return Segment(item.segment)
        if kind != "orthography":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"item {index} has no key that this server knows")
        length, limit = len(item.orthography.encode("utf-8")), self._limits.max_orthography_length
        if length > limit:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"item {index}: an orthography of {length} bytes; it may have {limit}",
            )
        return Orthography(item.orthography)


def _item_status(error: SeqtrainError | None) -> aligner_pb2.ItemStatus:
    if error is None:
        return aligner_pb2.ItemStatus(code=aligner_pb2.ITEM_CODE_OK)
    if isinstance(error, OutOfVocabularyError):
        code, words = aligner_pb2.ITEM_CODE_OUT_OF_VOCABULARY, error.words
    elif isinstance(error, UnknownSegmentError):
        code, words = aligner_pb2.ITEM_CODE_UNKNOWN_SEGMENT, ()
    else:
        code, words = aligner_pb2.ITEM_CODE_FAILED, ()
    return aligner_pb2.ItemStatus(code=code, message=str(error), words=words)


def _version() -> str:
    try:
        return version("seqtrain")
    except PackageNotFoundError:
        return "not installed"


def _host_id() -> str:
    """Equal for all processes of this machine until it is started anew; a random one where the kernel has
    none.
    """
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="ascii").strip() if path.exists() else uuid.uuid4().hex
