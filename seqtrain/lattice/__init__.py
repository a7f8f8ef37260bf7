"""Lattices: acyclic, frame-stamped graphs of the paths that are left of a search, and what is done with them."""

from seqtrain.lattice.confidence import Unit, confidence
from seqtrain.lattice.intersect import intersect
from seqtrain.lattice.k2 import from_k2_lattice as from_k2
from seqtrain.lattice.k2 import to_k2_lattice as to_k2
from seqtrain.lattice.lattice import Lattice
from seqtrain.lattice.paths import Paths, best_path, nbest, sample_paths
from seqtrain.lattice.prune import prune
from seqtrain.lattice.rescore import rescore
from seqtrain.lattice.total_score import arc_posteriors, total_score

__all__ = [
    "Lattice",
    "Paths",
    "Unit",
    "arc_posteriors",
    "best_path",
    "confidence",
    "from_k2",
    "intersect",
    "nbest",
    "prune",
    "rescore",
    "sample_paths",
    "to_k2",
    "total_score",
]
