"""Automata that were fetched before, the most recently used of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

from seqtrain.fsa import Fsa

__all__ = ["AutomatonCache", "CacheKey"]

# Of the Python objects around the tensors: about what five tensors, an Fsa and an entry take.
_OVERHEAD_BYTES = 1200


class CacheKey(NamedTuple):
    """What decides an automaton: whose labels, which configuration, which segment."""

    inventory_etag: str
    config_digest: str
    segment: str


class AutomatonCache:
    """Automata by key, at most `max_bytes` of them; the least recently used one goes first. Safe between
    threads.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[CacheKey, tuple[Fsa, int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def max_bytes(self) -> int:
        """Memory that the automata may take."""
        return self._max_bytes

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Memory of the automata that are kept."""
        return self._bytes

    def get(self, key: CacheKey) -> Fsa | None:
        """The automaton, which becomes the most recently used one, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: CacheKey, fsa: Fsa) -> None:
        """Keeps the automaton. It must own its memory: a view would keep alive what it is a view of."""
        tensors = (fsa.arcs, fsa.weights, fsa.final_states, fsa.final_weights)
        size = _OVERHEAD_BYTES + sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if size > self._max_bytes:
            return
        with self._lock:
            if key in self._entries:
                self._bytes -= self._entries.pop(key)[1]
            self._entries[key] = (fsa, size)
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._bytes -= self._entries.popitem(last=False)[1][1]
