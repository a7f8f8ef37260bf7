"""Decoding without a lattice, and error rates: greedy CTC, phone loop, word loop with a bigram; PER and
WER."""

from seqtrain.decoding.bigram import Bigram, witten_bell
from seqtrain.decoding.error_rate import EditCounts, ErrorRate, count_edits, error_rate
from seqtrain.decoding.greedy import ctc_greedy

__all__ = [
    "Bigram",
    "EditCounts",
    "ErrorRate",
    "count_edits",
    "ctc_greedy",
    "error_rate",
    "witten_bell",
]
