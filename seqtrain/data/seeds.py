"""Random numbers that depend on what they are for, never on what was drawn before."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["generator"]


def generator(seed: int, *purpose: int | str) -> torch.Generator:
    """A generator seeded by a hash of `seed` and `purpose` (say, an epoch and a batch).

    Since no state is carried from one draw to the next, a resumed run draws the same numbers without having
    stored any generator, and adding a consumer doesn't shift the others.
    """
    digest = hashlib.sha256("\0".join(map(str, (seed, *purpose))).encode()).digest()
    result = torch.Generator()
    result.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return result
