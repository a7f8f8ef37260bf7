"""Automata that the server keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqtrain.aligner.v1 import aligner_pb2 as pb
from seqtrain.aligner.v1.aligner_pb2_grpc import AlignerStub
from seqtrain.aligner.v1.automata import PackedAutomaton
from sprint_bridge.automaton_cache import AutomatonCache, CacheKey
from sprint_bridge.backends.base import BatchAutomata, Orthography, Segment
from sprint_bridge.backends.local import LocalBackend
from sprint_bridge.server import AlignerServer
from tests.bridge.toy import builder


def automaton(size: int) -> PackedAutomaton:
    """One whose arrays take `size` bytes."""
    return PackedAutomaton(1, 0, 0, 0, "float32", bytes(size), b"", b"", b"")


def key(name: str, digest: str = "d") -> CacheKey:
    return CacheKey(digest, Segment(name))


def test_what_decides_an_automaton() -> None:
    cache = AutomatonCache(1 << 20)
    cache.put([(key("a"), automaton(8))])
    asked = [key("a"), key("a", "other"), CacheKey("d", Orthography("a")), key("b"), key("a")]
    assert cache.get(asked) == [automaton(8), None, None, None, automaton(8)]
    assert cache.counters()[:3] == (2, 3, 1)


def test_the_least_recently_used_goes_first() -> None:
    cache = AutomatonCache(3 * 2000)
    cache.put((key(name), automaton(1200)) for name in "abc")
    cache.get([key("a")])
    cache.put([(key("d"), automaton(1200))])
    assert [found is not None for found in cache.get([key(name) for name in "abcd"])] == [
        True,
        False,
        True,
        True,
    ]
    cache.put([(key("huge"), automaton(6000))])
    assert cache.get([key("huge")]) == [None]
    assert cache.counters().entries == 3


def test_none_is_kept_without_memory_for_it() -> None:
    cache = AutomatonCache(0)
    cache.put([(key("a"), automaton(0))])
    assert cache.get([key("a")]) == [None]
    assert cache.counters() == (0, 1, 0, 0, 0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefäöü"), st.integers(0, 3000))), st.integers(0, 9000))
def test_memory_is_bounded(puts: list[tuple[str, int]], limit: int) -> None:
    cache = AutomatonCache(limit)
    held: dict[str, int] = {}
    for name, size in puts:
        cache.put([(key(name), automaton(size))])
        held[name] = size
        counters = cache.counters()
        assert counters.num_bytes <= limit
        found = {name: cache.get([key(name)])[0] for name in held}
        kept = [automaton for automaton in found.values() if automaton is not None]
        assert len(kept) == counters.entries
        assert sum(automaton.num_bytes for automaton in kept) <= counters.num_bytes


class Counting(LocalBackend):
    """Writes down what it is asked for."""

    def __init__(self) -> None:
        super().__init__(builder())
        self.asked: list[str] = []

    def automata(self, items: Sequence[Segment | Orthography]) -> BatchAutomata:
        self.asked += [item.text if isinstance(item, Orthography) else item.name for item in items]
        return super().automata(items)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_an_engine_is_asked_once(tmp_path: Path, cache_bytes: int) -> None:
    backend = Counting()
    requests: list[list[dict[str, Any]]] = [
        [{"segment": "toy/1"}, {"segment": "toy/oov"}, {"orthography": "one"}, {"segment": "toy/2"}],
        [{"segment": "toy/2"}, {"segment": "toy/3"}, {"orthography": "one"}, {"segment": "toy/oov"}],
        [{"segment": "toy/2"}, {"segment": "toy/1"}],
    ]
    server = AlignerServer(listen=f"unix:{tmp_path}/a.sock", cache_bytes=cache_bytes)
    with server, grpc.insecure_channel(server.target) as channel:
        server.serve(backend)
        stub = AlignerStub(channel)
        answers = [
            stub.GetAutomata(
                pb.GetAutomataRequest(request_id=7, items=[pb.ItemKey(**item) for item in items]), timeout=5
            )
            for items in requests
        ]
    once = ["toy/1", "toy/oov", "one", "toy/2", "toy/3", "toy/oov"]
    often = [name for items in requests for item in items for name in item.values()]
    assert backend.asked == (once if cache_bytes else often)
    ok, oov = pb.ITEM_CODE_OK, pb.ITEM_CODE_OUT_OF_VOCABULARY
    assert [[status.code for status in answer.statuses] for answer in answers] == [
        [ok, oov, ok, ok], [ok, ok, ok, oov], [ok, ok],
    ]  # fmt: skip
    plain = LocalBackend(builder())
    for items, answer in zip(requests, answers, strict=True):
        wanted = plain.automata(
            [Orthography(i["orthography"]) if "orthography" in i else Segment(i["segment"]) for i in items]
        ).automata
        assert answer.request_id == 7
        assert answer.arcs.raw == wanted.arcs.numpy().tobytes()
        assert list(answer.arcs.shape) == list(wanted.arcs.shape)
        assert answer.weights.raw == wanted.weights.numpy().tobytes()
        assert answer.num_states.raw == wanted.num_states.numpy().tobytes()
