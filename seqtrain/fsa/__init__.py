"""Weighted finite-state acceptors over the columns of the scores: batches, topologies, text formats,
adapters."""

from seqtrain.fsa.automaton import Fsa
from seqtrain.fsa.batch import FsaBatch
from seqtrain.fsa.denominator import denominator
from seqtrain.fsa.k2 import K2Attributes, from_k2, k2_attributes, to_k2
from seqtrain.fsa.stationary import stationary_distribution
from seqtrain.fsa.text_k2 import from_k2_text, to_k2_text
from seqtrain.fsa.text_openfst import from_openfst_text, to_openfst_text
from seqtrain.fsa.token_graph import token_model_of
from seqtrain.fsa.token_model import TokenModel, estimate_token_model, read_arpa
from seqtrain.fsa.topology.ctc import ctc
from seqtrain.fsa.topology.hmm import hmm
from seqtrain.fsa.topology.linear import linear
from seqtrain.fsa.topology.rna import rna
from seqtrain.fsa.topology.transitions import Silence, Transitions
from seqtrain.fsa.topology.word_hmm import Word, WordStates, word_hmm, word_hmm_states

__all__ = [
    "Fsa",
    "FsaBatch",
    "K2Attributes",
    "Silence",
    "TokenModel",
    "Transitions",
    "Word",
    "WordStates",
    "ctc",
    "denominator",
    "estimate_token_model",
    "from_k2",
    "from_k2_text",
    "from_openfst_text",
    "hmm",
    "k2_attributes",
    "linear",
    "read_arpa",
    "rna",
    "stationary_distribution",
    "to_k2",
    "to_k2_text",
    "to_openfst_text",
    "token_model_of",
    "word_hmm",
    "word_hmm_states",
]
