"""The stream of automata: answers in order, several under way, and what happens when it breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import pytest

from seqtrain.aligner import AlignerClient
from seqtrain.aligner.stream import AutomataStream, StreamError
from seqtrain.aligner.v1 import aligner_pb2 as pb
from seqtrain.aligner.v1.aligner_pb2_grpc import AlignerStub
from seqtrain.errors import AlignerItemError
from sprint_bridge.server import AlignerServer
from tests.aligner.test_client import TAGS, equal
from tests.bridge.toy import builder, serve


@pytest.fixture
def channel(server: AlignerServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target) as channel:
        yield channel


def request(*names: str) -> pb.GetAutomataRequest:
    return pb.GetAutomataRequest(items=[pb.ItemKey(segment=name) for name in names])


def test_answers_come_in_order_with_their_ids(channel: grpc.Channel) -> None:
    requests = [request(tag) for tag in TAGS[:9]]
    for number, message in enumerate(requests):
        message.request_id = 100 + number
    stub = AlignerStub(channel)
    answers = list(stub.StreamAutomata((pb.StreamAutomataRequest(request=r) for r in requests), timeout=5))
    assert [answer.response.request_id for answer in answers] == list(range(100, 109))
    assert all(answer.response.statuses[0].code == pb.ITEM_CODE_OK for answer in answers)


def test_many_threads_share_a_stream(channel: grpc.Channel) -> None:
    stream = AutomataStream()
    found: dict[int, int] = {}

    def ask(number: int) -> None:
        for _ in range(5):
            answer = stream.ask(channel, request(*TAGS[: number + 1]), 5.0)
            found[number] = len(answer.statuses)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number + 1 for number in range(8)}
    stream.close()


def test_a_request_that_is_refused_ends_the_stream_and_the_next_opens_another(channel: grpc.Channel) -> None:
    stream = AutomataStream()
    with pytest.raises(StreamError, match="a batch of 0") as caught:
        stream.ask(channel, request(), 5.0)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(stream.ask(channel, request("toy/1"), 5.0).statuses) == 1
    stream.close()


def test_prefetching_goes_by_the_stream_and_survives_a_restart(address: str) -> None:
    server = serve(address)
    with AlignerClient(server.target, timeout=10.0, cache_bytes=0) as client:
        batches = [TAGS[i : i + 4] for i in range(0, 40, 4)]
        client.prefetch(batches)
        assert equal(client.automata(batches[0]), builder().automata(batches[0]))
        # The first batch may have been asked for before the batches ahead of it have opened the stream.
        give_up = time.monotonic() + 10.0
        while not client._stream._open and time.monotonic() < give_up:
            time.sleep(0.01)
        assert len(client._stream._open) == 1
        server.stop()
        server = serve(address)
        for batch in batches[1:]:
            assert equal(client.automata(batch), builder().automata(batch))
    server.stop()


def test_an_item_that_fails_ahead_of_time_fails_at_its_batch(client: AlignerClient) -> None:
    client.prefetch([["toy/1"], ["toy/oov"], ["toy/2"]])
    assert client.automata(["toy/1"]).tags == ("toy/1",)
    with pytest.raises(AlignerItemError, match="nine"):
        client.automata(["toy/oov"])
    assert client.automata(["toy/2"]).tags == ("toy/2",)


def test_more_streams_than_working_threads(server: AlignerServer) -> None:
    """A stream that is open and idle keeps nobody else waiting."""
    clients = [AlignerClient(server.target, timeout=10.0, cache_bytes=0) for _ in range(12)]
    began = time.monotonic()
    for client in clients:
        client.prefetch([TAGS[:2], TAGS[2:4]])
        assert client.automata(TAGS[:2]).tags == tuple(TAGS[:2])
    for client in clients:
        assert client.automata(TAGS[4:6]).tags == tuple(TAGS[4:6])
    assert time.monotonic() - began < 8.0
    for client in clients:
        client.close()


def test_a_client_that_goes_away_in_the_middle_of_a_stream(server: AlignerServer) -> None:
    with grpc.insecure_channel(server.target) as channel:
        call = AlignerStub(channel).StreamAutomata(
            pb.StreamAutomataRequest(request=request(*TAGS)) for _ in range(100)
        )
        next(call)
        call.cancel()
    with AlignerClient(server.target, timeout=5.0) as client:
        assert len(client.automata(TAGS)) == len(TAGS)
