"""Addresses of one server or several."""

from __future__ import annotations

from collections.abc import Sequence

from seqtrain.errors import ArgumentError

__all__ = ["split_targets"]

# Schemes of grpc whose addresses have commas of their own.
_LISTS = ("ipv4:", "ipv6:")


def split_targets(target: str | Sequence[str]) -> tuple[str, ...]:
    """Each server's address, of a sequence, or of a text with commas between.

    Raises:
        ArgumentError: there is none, one is malformed, or one stands there twice.
    """
    if isinstance(target, str):
        targets = (
            (target,) if target.startswith(_LISTS) else tuple(part.strip() for part in target.split(","))
        )
    else:
        targets = tuple(target)
    for each in targets:
        scheme, _, rest = each.rpartition(":") if isinstance(each, str) else ("", "", "")
        if not scheme or not rest:
            raise ArgumentError(
                f"target is {each!r}; it must be unix:/path/of/socket or host:port", argument="target"
            )
    if not targets:
        raise ArgumentError("target is empty; at least one server is needed", argument="target")
    for index, each in enumerate(targets):
        if each in targets[:index]:
            raise ArgumentError(f"target has {each!r} twice", argument="target")
    return targets
