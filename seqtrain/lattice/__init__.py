"""Lattices: acyclic, frame-stamped graphs of the paths that are left of a search, and what is done with them."""

from seqtrain.lattice.lattice import Lattice
from seqtrain.lattice.total_score import arc_posteriors, total_score

__all__ = ["Lattice", "arc_posteriors", "total_score"]
