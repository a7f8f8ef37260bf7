"""Automata that a server was asked for before, packed as its answers have them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from seqtrain.aligner.v1.automata import PackedAutomaton
from sprint_bridge.backends.base import Orthography, Segment

__all__ = ["AutomatonCache", "CacheCounters", "CacheKey"]

# Of the Python objects around the bytes: about what an entry takes without its arrays and its name.
_OVERHEAD_BYTES = 700


class CacheKey(NamedTuple):
    """What decides an automaton: the configuration's digest, and the item."""

    config_digest: str
    item: Segment | Orthography

    @property
    def num_bytes(self) -> int:
        """Of what the item says; characters beyond ASCII take up to four."""
        text = self.item.text if isinstance(self.item, Orthography) else self.item.name
        return len(text) if text.isascii() else 4 * len(text)


class CacheCounters(NamedTuple):
    """What a cache has been asked for so far, and what it holds now."""

    hits: int
    misses: int
    entries: int
    num_bytes: int
    max_bytes: int


class AutomatonCache:
    """Packed automata by key, at most `max_bytes` of them; the least recently used one goes first. Safe between
    threads.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._hits = self._misses = 0
        self._entries: OrderedDict[CacheKey, tuple[PackedAutomaton, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, keys: Sequence[CacheKey]) -> list[PackedAutomaton | None]:
        """For each key its automaton, which becomes the most recently used one, or None. Counts both."""
        found: list[PackedAutomaton | None] = []
        with self._lock:
            for key in keys:
                entry = self._entries.get(key)
                if entry is None:
                    found.append(None)
                    continue
                self._entries.move_to_end(key)
                found.append(entry[0])
            self._misses += found.count(None)
            self._hits += len(found) - found.count(None)
        return found

    def put(self, automata: Iterable[tuple[CacheKey, PackedAutomaton]]) -> None:
        """Keeps automata. One that is larger than the whole cache isn't kept."""
        with self._lock:
            for key, automaton in automata:
                size = _OVERHEAD_BYTES + key.num_bytes + automaton.num_bytes
                if size > self._max_bytes:
                    continue
                if key in self._entries:
                    self._bytes -= self._entries.pop(key)[1]
                self._entries[key] = (automaton, size)
                self._bytes += size
                while self._bytes > self._max_bytes:
                    self._bytes -= self._entries.popitem(last=False)[1][1]

    def counters(self) -> CacheCounters:
        """Hits, misses and size."""
        with self._lock:
            return CacheCounters(self._hits, self._misses, len(self._entries), self._bytes, self._max_bytes)
