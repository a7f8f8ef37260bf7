"""The cache of automata."""

from __future__ import annotations

import threading

from seqtrain.aligner.cache import AutomatonCache, CacheKey
from seqtrain.fsa import Fsa


def key(segment: str, digest: str = "digest") -> CacheKey:
    return CacheKey("etag", digest, segment)


def automaton(arcs: int = 1) -> Fsa:
    return Fsa([[0, 1, label] for label in range(arcs)])


def test_the_least_recently_used_goes_first() -> None:
    cache = AutomatonCache(1)
    one = automaton()
    cache.put(key("a"), one)
    assert len(cache) == 0  # larger than all of the cache
    cache = AutomatonCache(10**6)
    cache.put(key("a"), one)
    size = cache.num_bytes
    cache = AutomatonCache(3 * size)
    for name in "abc":
        cache.put(key(name), automaton())
    assert cache.get(key("a")) is not None
    cache.put(key("d"), automaton())
    assert [name for name in "abcd" if cache.get(key(name)) is not None] == ["a", "c", "d"]
    assert cache.num_bytes == 3 * size
    cache.put(key("d"), automaton())
    assert cache.num_bytes == 3 * size


def test_the_whole_key_counts() -> None:
    cache = AutomatonCache(10**6)
    one = automaton()
    cache.put(key("a"), one)
    assert cache.get(key("a")) is one
    assert cache.get(key("a", "other")) is None
    assert cache.get(CacheKey("other", "digest", "a")) is None


def test_memory_is_bounded_under_threads() -> None:
    cache = AutomatonCache(20_000)

    def work(seed: int) -> None:
        for number in range(300):
            name = str(seed * number % 37)
            if cache.get(key(name)) is None:
                cache.put(key(name), automaton(1 + number % 50))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < cache.num_bytes <= 20_000
