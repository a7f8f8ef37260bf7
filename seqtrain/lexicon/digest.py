"""Digests of content: equal content has an equal digest, on every machine."""

from __future__ import annotations

import hashlib
import json

__all__ = ["content_digest"]


def content_digest(content: object) -> str:
    """SHA-256 (64 hex digits) of `content`, which is made of dicts, lists, strings, numbers, booleans and
    None.

    Keys of dicts are sorted; floats are written with as many digits as tell them apart.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
