"""Recording what a service answers: a server between clients and the service, or a list of segments asked for.

The server in between is what reproduces a step of training without the aligner: it sees what the trainer really asks,
scores and all, and nobody needs to know the list beforehand. It forwards each call as it is, its status as well, and
writes down what was answered.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from seqtrain.aligner.v1 import aligner_pb2, aligner_pb2_grpc
from seqtrain.aligner.v1.credentials import Credentials
from seqtrain.aligner.v1.health import SERVICE
from seqtrain.aligner.v1.scores import SCORE_DTYPES, split_frames
from seqtrain.errors import AlignerUnavailableError, DataError
from sprint_bridge.address import resolve_address
from sprint_bridge.recorded import ScoredKey, item_of, scores_digest
from sprint_bridge.recording import Kind, RecordingWriter

__all__ = ["RecordingServer", "record_segments"]

_LOG = logging.getLogger("sprint_bridge")
_OK = aligner_pb2.ITEM_CODE_OK
_THREADS = 128
_MOST_BYTES = 1 << 30
_OPTIONS = [
    ("grpc.max_receive_message_length", _MOST_BYTES),
    ("grpc.max_send_message_length", -1),
    # An aligner is never behind a web proxy, whatever the environment says.
    ("grpc.enable_http_proxy", 0),
]

A = TypeVar("A")


class _Recorder:
    """A service, and the file of what it answers. An item that is in the file already isn't written again, unless what
    was wrong with it then isn't now.
    """

    def __init__(self, stub: aligner_pb2_grpc.AlignerStub, out: Path, *, timeout: float) -> None:
        self.info = stub.GetServerInfo(aligner_pb2.GetServerInfoRequest(), timeout=timeout)
        self.inventory = aligner_pb2.GetLabelInventoryResponse()
        for part in stub.GetLabelInventory(aligner_pb2.GetLabelInventoryRequest(), timeout=timeout):
            self.inventory.MergeFrom(part)
        # A recorder shares no memory: who asks through it sends.
        for number in range(len(self.info.capabilities) - 1, -1, -1):
            if self.info.capabilities[number] == aligner_pb2.CAPABILITY_SHARED_MEMORY:
                del self.info.capabilities[number]
        self._lock = threading.Lock()
        self._codes: dict[tuple[Kind, object], int] = {}
        self._writer = RecordingWriter(out)
        self.written = 0
        self._write(Kind.SERVER, [self.info, self.inventory])

    def automata(
        self, request: aligner_pb2.GetAutomataRequest, answer: aligner_pb2.GetAutomataResponse
    ) -> None:
        items = [item_of(key) for key in request.items]
        self._keep(Kind.AUTOMATA, items, answer.statuses, [request, answer], answer)

    def alignments(
        self,
        request: aligner_pb2.GetAlignmentsRequest,
        answers: Sequence[aligner_pb2.GetAlignmentsResponse],
    ) -> None:
        statuses = [status for answer in answers for status in answer.statuses]
        self._keep(Kind.ALIGNMENTS, list(request.segments), statuses, [request, *answers], *answers)

    def forced(
        self,
        header: aligner_pb2.ScoresHeader,
        data: bytes,
        answers: Sequence[aligner_pb2.GetAlignmentsResponse],
    ) -> None:
        keys = _scored_keys(header, data)
        statuses = [status for answer in answers for status in answer.statuses]
        digests = b"".join(key.digest for key in keys)
        self._keep(Kind.FORCED, keys, statuses, [header, digests, *answers], *answers)

    def losses(
        self,
        header: aligner_pb2.ScoresHeader,
        data: bytes,
        answer: aligner_pb2.LossesHeader,
        signals: bytes,
    ) -> None:
        keys = _scored_keys(header, data)
        digests = b"".join(key.digest for key in keys)
        self._keep(Kind.LOSSES, keys, answer.statuses, [header, digests, answer, signals], answer)

    def close(self) -> None:
        with self._lock:
            self._writer.close()

    def discard(self) -> None:
        with self._lock:
            self._writer.discard()

    def _keep(
        self,
        kind: Kind,
        keys: Sequence[object],
        statuses: Sequence[aligner_pb2.ItemStatus],
        parts: Sequence[_Part],
        *answers: aligner_pb2.GetAutomataResponse
        | aligner_pb2.GetAlignmentsResponse
        | aligner_pb2.LossesHeader,
    ) -> None:
        for answer in answers:
            if (answer.config_digest, answer.inventory_etag) != (
                self.info.config_digest,
                self.info.inventory_etag,
            ):
                raise DataError(
                    f"{self._writer.path}: the server has another configuration than when the recording began",
                    path=str(self._writer.path),
                )
        if len(statuses) != len(keys):
            return  # the client will say what is wrong with it
        codes = [((kind, key), int(status.code)) for key, status in zip(keys, statuses, strict=True)]
        with self._lock:
            if all(self._codes.get(key) in (code, _OK) for key, code in codes):
                return
            for key, code in codes:
                if self._codes.get(key) != _OK:
                    self._codes[key] = code
            self._write(kind, parts)

    def _write(self, kind: Kind, parts: Sequence[_Part]) -> None:
        self._writer.write(
            kind, [part if isinstance(part, bytes) else part.SerializeToString() for part in parts]
        )
        self.written += 1


_Part = (
    bytes
    | aligner_pb2.GetServerInfoResponse
    | aligner_pb2.GetLabelInventoryResponse
    | aligner_pb2.GetAutomataRequest
    | aligner_pb2.GetAutomataResponse
    | aligner_pb2.GetAlignmentsRequest
    | aligner_pb2.GetAlignmentsResponse
    | aligner_pb2.ScoresHeader
    | aligner_pb2.LossesHeader
)


def _scored_keys(header: aligner_pb2.ScoresHeader, data: bytes) -> list[ScoredKey]:
    rows = split_frames(data, SCORE_DTYPES[header.dtype], list(header.num_frames), header.num_labels)
    return [
        ScoredKey(name, scores_digest(scores.astype(np.float32, copy=False)))
        for name, scores in zip(header.segments, rows, strict=True)
    ]


class _Proxy(aligner_pb2_grpc.AlignerServicer):
    """Forwards each call, and has its answer written down."""

    def __init__(self, stub: aligner_pb2_grpc.AlignerStub, recorder: _Recorder) -> None:
        self._stub = stub
        self._recorder = recorder

    def GetServerInfo(  # noqa: N802  # the name is the protocol's
        self, request: aligner_pb2.GetServerInfoRequest, context: grpc.ServicerContext
    ) -> aligner_pb2.GetServerInfoResponse:
        _forwarded(context, lambda left: self._stub.GetServerInfo(request, timeout=left))
        return self._recorder.info

    def GetLabelInventory(  # noqa: N802  # the name is the protocol's
        self, request: aligner_pb2.GetLabelInventoryRequest, context: grpc.ServicerContext
    ) -> Iterator[aligner_pb2.GetLabelInventoryResponse]:
        yield from _forwarded(context, lambda left: list(self._stub.GetLabelInventory(request, timeout=left)))

    def GetAutomata(  # noqa: N802  # the name is the protocol's
        self, request: aligner_pb2.GetAutomataRequest, context: grpc.ServicerContext
    ) -> aligner_pb2.GetAutomataResponse:
        answer = _forwarded(context, lambda left: self._stub.GetAutomata(request, timeout=left))
        _recorded(context, lambda: self._recorder.automata(request, answer))
        return answer

    def StreamAutomata(  # noqa: N802  # the name is the protocol's
        self, request_iterator: Iterator[aligner_pb2.StreamAutomataRequest], context: grpc.ServicerContext
    ) -> Iterator[aligner_pb2.StreamAutomataResponse]:
        for message in request_iterator:
            yield aligner_pb2.StreamAutomataResponse(response=self.GetAutomata(message.request, context))

    def GetAlignments(  # noqa: N802  # the name is the protocol's
        self, request: aligner_pb2.GetAlignmentsRequest, context: grpc.ServicerContext
    ) -> Iterator[aligner_pb2.GetAlignmentsResponse]:
        answers = _forwarded(context, lambda left: list(self._stub.GetAlignments(request, timeout=left)))
        _recorded(context, lambda: self._recorder.alignments(request, answers))
        yield from answers

    def Align(  # noqa: N802  # the name is the protocol's
        self, request_iterator: Iterator[aligner_pb2.AlignRequest], context: grpc.ServicerContext
    ) -> Iterator[aligner_pb2.AlignResponse]:
        sent = _Sent(request_iterator)
        answers = _forwarded(context, lambda left: list(self._stub.Align(sent.messages(), timeout=left)))
        header, data = sent.header, bytes(sent.data)
        responses = [answer.response for answer in answers]
        _recorded(context, lambda: self._recorder.forced(header, data, responses))
        yield from answers

    def ComputeLosses(  # noqa: N802  # the name is the protocol's
        self, request_iterator: Iterator[aligner_pb2.ComputeLossesRequest], context: grpc.ServicerContext
    ) -> Iterator[aligner_pb2.ComputeLossesResponse]:
        sent = _Sent(request_iterator)
        first, *rest = _forwarded(
            context, lambda left: list(self._stub.ComputeLosses(sent.messages(), timeout=left))
        )
        header, data = sent.header, bytes(sent.data)
        signals = b"".join(message.data for message in rest)
        _recorded(context, lambda: self._recorder.losses(header, data, first.header, signals))
        yield first
        yield from rest

    def RegisterSharedMemory(  # noqa: N802  # the name is the protocol's
        self, request: aligner_pb2.RegisterSharedMemoryRequest, context: grpc.ServicerContext
    ) -> aligner_pb2.RegisterSharedMemoryResponse:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "a recorder shares no memory; send the scores")

    def UnregisterSharedMemory(  # noqa: N802  # the name is the protocol's
        self, request: aligner_pb2.UnregisterSharedMemoryRequest, context: grpc.ServicerContext
    ) -> aligner_pb2.UnregisterSharedMemoryResponse:
        return aligner_pb2.UnregisterSharedMemoryResponse()


R = TypeVar("R", aligner_pb2.AlignRequest, aligner_pb2.ComputeLossesRequest)


class _Sent(Generic[R]):
    """What a client sends in parts, passed on as it comes."""

    def __init__(self, messages: Iterator[R]) -> None:
        self._messages: Iterator[R] = messages
        self.header = aligner_pb2.ScoresHeader()
        self.data = bytearray()

    def messages(self) -> Iterator[R]:
        for message in self._messages:
            if message.WhichOneof("part") == "header":
                self.header.CopyFrom(message.header)
            elif len(self.data) + len(message.data) <= _MOST_BYTES:
                self.data += message.data
            yield message


def _forwarded(context: grpc.ServicerContext, call: Callable[[float | None], A]) -> A:
    """The result of a call to the service, whose status, where it isn't OK, is also that of the call here."""
    try:
        return call(context.time_remaining())
    except grpc.RpcError as error:
        if not isinstance(error, grpc.Call):
            raise
        context.abort(error.code(), error.details() or "")


def _recorded(context: grpc.ServicerContext, write: Callable[[], None]) -> None:
    """Whoever records a training wants to know that something of it wasn't, rather than to find out later."""
    try:
        write()
    except DataError as error:
        _LOG.error("%s", error)
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"the recording has failed: {error}")


class RecordingServer:
    """A server in front of a service, which writes `out` until `stop`.

    Args:
        target: the service.
        out: the recording; while it is written, its name ends in `.part`.
        listen: as of `resolve_address`: a unix socket, or a loopback port with `insecure_loopback`.
        insecure_loopback: as of `resolve_address`.
        credentials: for the service. Tokens of the clients aren't passed on.
        timeout: seconds for the service to be ready.

    Raises:
        AlignerUnavailableError: the service isn't.
        ConfigError: the address isn't allowed or is taken.
        DataError: `out` can't be written.
    """

    def __init__(
        self,
        target: str,
        out: Path,
        *,
        listen: str | None = None,
        insecure_loopback: bool = False,
        credentials: Credentials | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._channel = (credentials if credentials is not None else Credentials()).open(target, _OPTIONS)
        self._executor = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="recorder")
        self._server = grpc.server(
            self._executor,
            options=[*_OPTIONS[:2], ("grpc.so_reuseport", 0)],
            maximum_concurrent_rpcs=_THREADS,
        )
        try:
            stub = aligner_pb2_grpc.AlignerStub(self._channel)
            address = resolve_address(listen, insecure_loopback=insecure_loopback)
            self._address = address.bind(self._server)
            self._recorder = _connected(stub, target, out, timeout)
        except BaseException:
            self._channel.close()
            raise
        aligner_pb2_grpc.add_AlignerServicer_to_server(_Proxy(stub, self._recorder), self._server)
        health = HealthServicer()
        for name in ("", SERVICE):
            health.set(name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        self._server.start()

    @property
    def target(self) -> str:
        """What clients connect to."""
        return self._address.target

    @property
    def records(self) -> int:
        """Records written so far."""
        return self._recorder.written

    def __enter__(self) -> RecordingServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self, drain_seconds: float = 5.0) -> None:
        """Lets running calls end for so long, and completes the recording."""
        self._server.stop(drain_seconds).wait()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._channel.close()
        self._address.remove()
        self._recorder.close()


def _connected(stub: aligner_pb2_grpc.AlignerStub, target: str, out: Path, timeout: float) -> _Recorder:
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            return _Recorder(stub, out, timeout=max(0.01, left))
        except grpc.RpcError as error:
            details = error.details() if isinstance(error, grpc.Call) else str(error)
            unreachable = isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAVAILABLE
            if not unreachable or left <= 0.1:
                raise AlignerUnavailableError(
                    f"aligner at {target}: not ready to be recorded: {details}", target=target
                ) from error
            time.sleep(min(0.1, left))


def record_segments(
    target: str,
    out: Path,
    segments: Sequence[str],
    *,
    credentials: Credentials | None = None,
    timeout: float = 30.0,
) -> dict[str, int]:
    """Records the automata of segments, and the alignments where the service has any; the number of items by status.

    Args:
        target, out, credentials: as of `RecordingServer`.
        segments: their full names.
        timeout: seconds for each call.

    Raises:
        AlignerUnavailableError: the service isn't reachable, or refuses; nothing is left of the recording.
        DataError: `out` can't be written, or the service has changed its configuration meanwhile.
    """
    counts: dict[str, int] = {}
    with (credentials if credentials is not None else Credentials()).open(target, _OPTIONS) as channel:
        stub = aligner_pb2_grpc.AlignerStub(channel)
        recorder = _connected(stub, target, out, timeout)
        size = recorder.info.limits.max_batch
        able = frozenset(recorder.info.capabilities)
        try:
            for begin in range(0, len(segments), size):
                names = segments[begin : begin + size]
                statuses: list[aligner_pb2.ItemStatus] = []
                if aligner_pb2.CAPABILITY_AUTOMATA_BY_SEGMENT in able:
                    request = aligner_pb2.GetAutomataRequest(
                        items=[aligner_pb2.ItemKey(segment=name) for name in names]
                    )
                    answer = stub.GetAutomata(request, timeout=timeout)
                    recorder.automata(request, answer)
                    statuses += answer.statuses
                if aligner_pb2.CAPABILITY_ALIGNMENTS in able:
                    wanted = aligner_pb2.GetAlignmentsRequest(segments=names)
                    answers = list(stub.GetAlignments(wanted, timeout=timeout))
                    recorder.alignments(wanted, answers)
                    statuses += itertools.chain.from_iterable(answer.statuses for answer in answers)
                for status in statuses:
                    name = aligner_pb2.ItemCode.Name(status.code).removeprefix("ITEM_CODE_").lower()
                    counts[name] = counts.get(name, 0) + 1
        except grpc.RpcError as error:
            recorder.discard()
            details = error.details() if isinstance(error, grpc.Call) else str(error)
            raise AlignerUnavailableError(
                f"aligner at {target}: recording stopped: {details}", target=target
            ) from error
        except BaseException:
            recorder.discard()
            raise
        recorder.close()
    return counts
