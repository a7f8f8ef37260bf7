"""Decoding without a lattice, and error rates: greedy CTC, phone loop, word loop with a bigram; PER and WER."""

from seqtrain.decoding.bigram import Bigram, witten_bell
from seqtrain.decoding.ctc_prefix_beam import ctc_prefix_beam
from seqtrain.decoding.error_rates import EditCounts, ErrorRate, count_edits, error_rate
from seqtrain.decoding.greedy import ctc_greedy
from seqtrain.decoding.loops import phone_loop, word_loop
from seqtrain.decoding.splice import WordLoop

__all__ = [
    "Bigram",
    "EditCounts",
    "ErrorRate",
    "WordLoop",
    "count_edits",
    "ctc_greedy",
    "ctc_prefix_beam",
    "error_rate",
    "phone_loop",
    "witten_bell",
    "word_loop",
]
