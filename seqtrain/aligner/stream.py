"""A stream of automata: many requests under way, each answer given to who asked."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

import grpc

from seqtrain.aligner.v1 import aligner_pb2, aligner_pb2_grpc

__all__ = ["AutomataStream", "StreamError"]


class StreamError(grpc.RpcError):
    """What ended a stream, or a wait for it; asked for its status as a call is."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        """The status."""
        return self._code

    def details(self) -> str:
        """What is known about it."""
        return self._details


class AutomataStream:
    """One for each channel, opened at the first request, and anew after it has broken. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._open: dict[grpc.Channel, _OpenStream] = {}

    def ask(
        self, channel: grpc.Channel, request: aligner_pb2.GetAutomataRequest, timeout: float
    ) -> aligner_pb2.GetAutomataResponse:
        """The answer to a request, whose `request_id` is replaced.

        Raises:
            StreamError: the stream broke, or the answer didn't come in time.
        """
        with self._lock:
            stream = self._open.get(channel)
            if stream is None or stream.ended:
                stream = self._open[channel] = _OpenStream(channel)
            request.request_id = next(self._ids)
            future = stream.send(request)
        try:
            return future.result(timeout)
        except FutureTimeoutError:
            # Answers come in order: behind one that doesn't come, none will.
            stream.cancel()
            raise StreamError(
                grpc.StatusCode.DEADLINE_EXCEEDED, "no answer on the stream of automata"
            ) from None

    def close(self) -> None:
        """Ends the streams, if there are any."""
        with self._lock:
            for stream in self._open.values():
                stream.cancel()
            self._open.clear()


class _OpenStream:
    """One stream and the thread that reads its answers."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue[aligner_pb2.GetAutomataRequest | None] = queue.SimpleQueue()
        self._waiting: dict[int, Future[aligner_pb2.GetAutomataResponse]] = {}
        self._call = aligner_pb2_grpc.AlignerStub(channel).StreamAutomata(self._messages())
        threading.Thread(target=self._read, name="stream of automata", daemon=True).start()

    def send(self, request: aligner_pb2.GetAutomataRequest) -> Future[aligner_pb2.GetAutomataResponse]:
        future: Future[aligner_pb2.GetAutomataResponse] = Future()
        with self._lock:
            if self.ended:
                future.set_exception(
                    StreamError(grpc.StatusCode.UNAVAILABLE, "the stream of automata has ended")
                )
                return future
            self._waiting[request.request_id] = future
        self._requests.put(request)
        return future

    def cancel(self) -> None:
        self._call.cancel()
        self._requests.put(None)

    def _messages(self) -> Iterator[aligner_pb2.StreamAutomataRequest]:
        while (request := self._requests.get()) is not None:
            yield aligner_pb2.StreamAutomataRequest(request=request)

    def _read(self) -> None:
        error = StreamError(grpc.StatusCode.UNAVAILABLE, "the server has ended the stream of automata")
        try:
            for message in self._call:
                with self._lock:
                    future = self._waiting.pop(message.response.request_id, None)
                if future is not None:
                    future.set_result(message.response)
        except grpc.RpcError as broken:
            if isinstance(broken, grpc.Call):
                error = StreamError(broken.code(), broken.details() or "")
        with self._lock:
            self.ended = True
            left, self._waiting = list(self._waiting.values()), {}
        self._requests.put(None)
        for future in left:
            future.set_exception(error)
