"""The aligner service: messages in, an engine's answers out."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from seqtrain.aligner.v1 import aligner_pb2, aligner_pb2_grpc
from seqtrain.aligner.v1.automata import PackedAutomaton, join_automata, pack_automata
from seqtrain.aligner.v1.packed_array import pack
from seqtrain.errors import (
    InfeasibleError,
    OutOfVocabularyError,
    QuarantinedError,
    SeqtrainError,
    SkippedError,
    UnknownSegmentError,
    WorkerCrashedError,
)
from sprint_bridge.automaton_cache import AutomatonCache, CacheKey
from sprint_bridge.backends.base import Backend, BatchAlignments, Capability, Orthography, Segment
from sprint_bridge.config import Limits
from sprint_bridge.refused import RefusedError
from sprint_bridge.scores import ReceivedScores, ScoreMessage, receive_scores, signal_chunks
from sprint_bridge.shared_memory import SharedRegions

if TYPE_CHECKING:
    from sprint_bridge.metrics import Metrics

__all__ = ["AlignerService"]

_CAPABILITIES = {
    Capability.AUTOMATA_BY_SEGMENT: aligner_pb2.CAPABILITY_AUTOMATA_BY_SEGMENT,
    Capability.AUTOMATA_BY_ORTHOGRAPHY: aligner_pb2.CAPABILITY_AUTOMATA_BY_ORTHOGRAPHY,
    Capability.ALIGNMENTS: aligner_pb2.CAPABILITY_ALIGNMENTS,
    Capability.FORCED_ALIGNMENT: aligner_pb2.CAPABILITY_FORCED_ALIGNMENT,
    Capability.LOSSES: aligner_pb2.CAPABILITY_LOSSES,
}
# The first kind that fits an error says which code the item gets.
_ITEM_CODES = (
    (OutOfVocabularyError, aligner_pb2.ITEM_CODE_OUT_OF_VOCABULARY),
    (UnknownSegmentError, aligner_pb2.ITEM_CODE_UNKNOWN_SEGMENT),
    (InfeasibleError, aligner_pb2.ITEM_CODE_INFEASIBLE),
    (WorkerCrashedError, aligner_pb2.ITEM_CODE_CRASHED),
    (QuarantinedError, aligner_pb2.ITEM_CODE_QUARANTINED),
    (SkippedError, aligner_pb2.ITEM_CODE_SKIPPED),
    (SeqtrainError, aligner_pb2.ITEM_CODE_FAILED),
)
_OK = aligner_pb2.ItemStatus(code=aligner_pb2.ITEM_CODE_OK)
# Well below the 4 MiB that a client takes in one message by default.
_LABELS_PER_MESSAGE = 4096
_FRAMES_PER_MESSAGE = 1 << 18


class AlignerService(aligner_pb2_grpc.AlignerServicer):
    """Answers the rpcs of `aligner.proto`; unavailable until `backend` is set.

    Args:
        limits: what a request may ask for.
        threads: that an engine works in at a time.
        cache_bytes: memory for automata that were asked for before. 0: none.
        metrics: counts items.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        threads: int = 4,
        cache_bytes: int = 256 << 20,
        metrics: Metrics | None = None,
    ) -> None:
        self.cache = AutomatonCache(cache_bytes)
        self._metrics = metrics
        self._working = threading.BoundedSemaphore(threads)
        self.backend: Backend | None = None
        self._limits = limits
        self._instance_id = uuid.uuid4().hex
        self._host_id = _host_id()
        self._version = _version()
        self._regions = SharedRegions(limits.max_shared_memory_bytes)

    def GetServerInfo(  # noqa: N802  # the name is the protocol's
        self, request: aligner_pb2.GetServerInfoRequest, context: grpc.ServicerContext
    ) -> aligner_pb2.GetServerInfoResponse:
        backend = self._loaded(context)
        limits = self._limits
        return aligner_pb2.GetServerInfoResponse(
            server_version=self._version,
            backend=backend.name,
            capabilities=sorted(
                [_CAPABILITIES[capability] for capability in backend.capabilities]
                + ([aligner_pb2.CAPABILITY_SHARED_MEMORY] if _is_local(context) else [])
            ),
            limits=aligner_pb2.Limits(
                max_batch=limits.max_batch,
                max_name_length=limits.max_name_length,
                max_orthography_length=limits.max_orthography_length,
                max_concurrent_calls=limits.max_concurrent_calls,
                max_request_bytes=limits.max_request_bytes,
                max_stream_requests=limits.max_stream_requests,
                max_score_bytes=limits.max_score_bytes,
                max_shared_memory_bytes=limits.max_shared_memory_bytes,
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
        packed, errors = self._packed_automata(backend, items)
        return join_automata(
            packed,
            self._statuses(errors),
            inventory_etag=backend.inventory.etag,
            config_digest=backend.config_digest,
            request_id=request.request_id,
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
        yield from _alignment_messages(
            answer, self._statuses(answer.errors), backend, request_id=request.request_id
        )

    def StreamAutomata(  # noqa: N802  # the name is the protocol's
        self, request_iterator: Iterator[aligner_pb2.StreamAutomataRequest], context: grpc.ServicerContext
    ) -> Iterator[aligner_pb2.StreamAutomataResponse]:
        # One request is read, answered, and only then the next one read: transport holds back a client that is faster.
        for message in request_iterator:
            yield aligner_pb2.StreamAutomataResponse(response=self.GetAutomata(message.request, context))

    def Align(  # noqa: N802  # the name is the protocol's
        self, request_iterator: Iterator[aligner_pb2.AlignRequest], context: grpc.ServicerContext
    ) -> Iterator[aligner_pb2.AlignResponse]:
        backend = self._loaded(context)
        if Capability.FORCED_ALIGNMENT not in backend.capabilities:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the backend {backend.name} aligns no scores")
        received = self._receive(request_iterator, backend, context)
        with self._working:
            answer = backend.align(received.segments, received.scores)
        statuses = self._statuses(answer.errors)
        for message in _alignment_messages(answer, statuses, backend, request_id=received.request_id):
            yield aligner_pb2.AlignResponse(response=message)

    def ComputeLosses(  # noqa: N802  # the name is the protocol's
        self, request_iterator: Iterator[aligner_pb2.ComputeLossesRequest], context: grpc.ServicerContext
    ) -> Iterator[Any]:
        backend = self._loaded(context)
        if Capability.LOSSES not in backend.capabilities:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the backend {backend.name} has no losses")
        received = self._receive(request_iterator, backend, context)
        with self._working:
            answer = backend.losses(received.segments, received.scores)
        # Signals that go into shared memory are there when the header is.
        messages = signal_chunks(answer.signals, received)
        written = list(messages) if received.result is not None else messages
        header = aligner_pb2.LossesHeader(
            request_id=received.request_id,
            inventory_etag=backend.inventory.etag,
            config_digest=backend.config_digest,
            statuses=self._statuses(answer.errors),
            losses=pack(answer.losses),
        )
        yield aligner_pb2.ComputeLossesResponse(header=header)
        yield from written

    def RegisterSharedMemory(  # noqa: N802  # the name is the protocol's
        self, request: aligner_pb2.RegisterSharedMemoryRequest, context: grpc.ServicerContext
    ) -> aligner_pb2.RegisterSharedMemoryResponse:
        if not _is_local(context):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "shared memory is for clients on a unix socket")
        try:
            self._regions.register(request.name, request.bytes)
        except RefusedError as error:
            context.abort(error.code, str(error))
        return aligner_pb2.RegisterSharedMemoryResponse()

    def UnregisterSharedMemory(  # noqa: N802  # the name is the protocol's
        self, request: aligner_pb2.UnregisterSharedMemoryRequest, context: grpc.ServicerContext
    ) -> aligner_pb2.UnregisterSharedMemoryResponse:
        self._regions.unregister(request.name)
        return aligner_pb2.UnregisterSharedMemoryResponse()

    def close(self) -> None:
        """Lets go of shared memory, and of the engine."""
        self._regions.close()
        if self.backend is not None:
            self.backend.close()

    def _packed_automata(
        self, backend: Backend, items: Sequence[Segment | Orthography]
    ) -> tuple[list[PackedAutomaton], list[SeqtrainError | None]]:
        """The automata of those items that have one, in order, and for each item None or what is wrong."""
        digest = backend.config_digest
        keys = [CacheKey(digest, item) for item in items]
        found = self.cache.get(keys)
        errors: list[SeqtrainError | None] = [None] * len(items)
        missing = [index for index, automaton in enumerate(found) if automaton is None]
        if missing:
            with self._working:
                answer = backend.automata([items[index] for index in missing])
            made = iter(pack_automata(answer.automata))
            for index, error in zip(missing, answer.errors, strict=True):
                if error is None:
                    found[index] = next(made)
                else:
                    errors[index] = error
            # What is wrong with an item isn't kept: a worker that has crashed over it may do better next time.
            self.cache.put(
                (keys[index], automaton) for index in missing if (automaton := found[index]) is not None
            )
        return [automaton for automaton in found if automaton is not None], errors

    def _receive(
        self, messages: Iterator[ScoreMessage], backend: Backend, context: grpc.ServicerContext
    ) -> ReceivedScores:
        try:
            return receive_scores(
                messages, limits=self._limits, num_labels=len(backend.inventory), etag=backend.inventory.etag,
                regions=self._regions,
            )  # fmt: skip
        except RefusedError as error:
            context.abort(error.code, str(error))

    def _statuses(self, errors: Sequence[SeqtrainError | None]) -> list[aligner_pb2.ItemStatus]:
        statuses = [_OK if error is None else _item_status(error) for error in errors]
        if self._metrics is not None:
            for code, count in Counter(status.code for status in statuses).items():
                name = aligner_pb2.ItemCode.Name(code).removeprefix("ITEM_CODE_").lower()
                self._metrics.items.labels(name).inc(count)
        return statuses

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


def _is_local(context: grpc.ServicerContext) -> bool:
    """Whether the client came over a unix socket, and so is on this host and allowed to be."""
    return context.peer().startswith("unix:")


def _alignment_messages(
    answer: BatchAlignments, statuses: Sequence[aligner_pb2.ItemStatus], backend: Backend, *, request_id: int
) -> Iterator[aligner_pb2.GetAlignmentsResponse]:
    """The alignments of a batch in messages of a middling size."""
    begin, count = 0, len(answer.labels)
    while begin < count:
        end, frames = begin, 0
        while end < count and (end == begin or frames < _FRAMES_PER_MESSAGE):
            frames += len(answer.labels[end])
            end += 1
        errors = answer.errors[begin:end]
        labels = [row for row, error in zip(answer.labels[begin:end], errors, strict=True) if error is None]
        yield aligner_pb2.GetAlignmentsResponse(
            request_id=request_id,
            inventory_etag=backend.inventory.etag,
            config_digest=backend.config_digest,
            statuses=statuses[begin:end],
            num_frames=pack(np.array([len(row) for row in labels], dtype=np.int64)),
            labels=pack(np.concatenate([np.zeros(0, dtype=np.int32), *labels])),
        )
        begin = end


def _item_status(error: SeqtrainError) -> aligner_pb2.ItemStatus:
    code = next(code for kind, code in _ITEM_CODES if isinstance(error, kind))
    words = error.words if isinstance(error, OutOfVocabularyError) else ()
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
