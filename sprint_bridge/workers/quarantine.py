"""Items that have killed workers, and aren't tried again."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

__all__ = ["Quarantine"]


class Quarantine:
    """Keys and why they are here. The oldest of more than `size` is forgotten; any thread may use it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        # A key may hold an orthography of any length; its digest doesn't.
        self._reasons: OrderedDict[bytes, str] = OrderedDict()

    def add(self, key: str, reason: str) -> None:
        """Puts an item under quarantine."""
        with self._lock:
            self._reasons[_digest(key)] = reason
            while len(self._reasons) > self._size:
                self._reasons.popitem(last=False)

    def reason(self, key: str) -> str | None:
        """Why an item is under quarantine, None where it isn't."""
        with self._lock:
            return self._reasons.get(_digest(key))

    def __len__(self) -> int:
        with self._lock:
            return len(self._reasons)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", errors="surrogatepass")).digest()
