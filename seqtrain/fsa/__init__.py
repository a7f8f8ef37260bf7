"""Weighted finite-state acceptors over the columns of the scores: batches, topologies, text formats,
adapters."""

from seqtrain.fsa.automaton import Fsa
from seqtrain.fsa.batch import FsaBatch
from seqtrain.fsa.topology.ctc import ctc
from seqtrain.fsa.topology.linear import linear

__all__ = ["Fsa", "FsaBatch", "ctc", "linear"]
