"""How many blocks work together on one direction of an utterance (csrc/cuda/cluster.h)."""

from __future__ import annotations

__all__ = ["ARCS_OF_A_BLOCK", "LARGEST_CLUSTER", "cluster_blocks"]

LARGEST_CLUSTER = 8
"""Blocks that any device with clusters runs together."""
ARCS_OF_A_BLOCK = 4096
"""In each frame; with fewer of them, a block is expected to wait for the others longer than it works. An estimate."""


def cluster_blocks(clusters: int, arcs: int, *, processors: int, largest: int) -> int:
    """Blocks of each of `clusters` that work side by side, over `arcs` a frame: a power of two, up to `largest`.

    As many as keep the processors busy with all clusters at once, a block on each, and no more than there is work for.
    """
    blocks = 1
    while (
        2 * blocks <= largest and 2 * blocks * clusters <= processors and 2 * blocks * ARCS_OF_A_BLOCK <= arcs
    ):
        blocks *= 2
    return blocks
