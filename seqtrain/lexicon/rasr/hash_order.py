"""The order in which a hash set of small integers hands them out."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["hash_set_order"]

# Numbers of buckets as a set grows: primes, each about twice the one before.
_BUCKETS = (1, 13, 29, 59, 127, 257, 541, 1109, 2357, 5087, 10273, 20753, 42043, 85229)


def hash_set_order(values: Iterable[int]) -> list[int]:
    """The distinct `values` as a chained hash set returns them that was filled in the given order.

    RASR collects the phonemes at the edges of words in such a set, and numbers its allophones as it runs over it. All
    elements are in one linked list; a new element goes to the front of the list, or, if another element of its bucket
    (value modulo the number of buckets) is there, in front of that. So up to 13 phonemes come out in reverse. Growing
    inserts all elements anew, from the front on.
    """
    order: list[int] = []
    buckets = _BUCKETS[0]
    for value in values:
        if value in order:
            continue
        if len(order) + 1 > buckets:
            buckets = next(count for count in _BUCKETS if count >= max(len(order) + 1, 2 * buckets))
            order = _inserted(order, buckets)
        order = _insert(order, value, buckets)
    return order


def _inserted(values: list[int], buckets: int) -> list[int]:
    order: list[int] = []
    for value in values:
        order = _insert(order, value, buckets)
    return order


def _insert(order: list[int], value: int, buckets: int) -> list[int]:
    bucket = value % buckets
    place = next((place for place, other in enumerate(order) if other % buckets == bucket), 0)
    return [*order[:place], value, *order[place:]]
