"""Lattices: acyclic, frame-stamped graphs of the paths that are left of a search, and what is done with them."""

from seqtrain.lattice.accuracy import frame_accuracy, overlap_accuracy
from seqtrain.lattice.confidence import Unit, confidence
from seqtrain.lattice.edit_risk import EditRisk, edit_risk
from seqtrain.lattice.intersect import intersect
from seqtrain.lattice.k2 import from_k2_lattice as from_k2
from seqtrain.lattice.k2 import to_k2_lattice as to_k2
from seqtrain.lattice.lattice import Lattice
from seqtrain.lattice.paths import Paths, best_path, nbest, sample_paths
from seqtrain.lattice.prune import prune
from seqtrain.lattice.rescore import rescore
from seqtrain.lattice.risk import expected_risk
from seqtrain.lattice.total_score import arc_posteriors, total_score

__all__ = [
    "EditRisk",
    "Lattice",
    "Paths",
    "Unit",
    "arc_posteriors",
    "best_path",
    "confidence",
    "edit_risk",
    "expected_risk",
    "frame_accuracy",
    "from_k2",
    "intersect",
    "nbest",
    "overlap_accuracy",
    "prune",
    "rescore",
    "sample_paths",
    "to_k2",
    "total_score",
]
