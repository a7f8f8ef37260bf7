"""What an engine says to a call that it has no capability for."""

from __future__ import annotations

from seqtrain.errors import ArgumentError
from sprint_bridge.backends.base import Capability

__all__ = ["incapable"]


def incapable(backend: str, capability: Capability) -> ArgumentError:
    """The error of such a call: whoever made it hasn't looked at the capabilities."""
    return ArgumentError(
        f"the backend {backend} has no {capability.value.replace('_', ' ')}", argument="capability"
    )
