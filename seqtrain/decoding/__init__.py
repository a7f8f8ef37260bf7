"""Decoding and error rates: greedy CTC, prefix beam, phone loop, word loop with a bigram, lexicon ∘ LM; PER and WER."""

from seqtrain.decoding.bigram import Bigram, witten_bell
from seqtrain.decoding.ctc_prefix_beam import ctc_prefix_beam
from seqtrain.decoding.error_rates import EditCounts, ErrorRate, count_edits, error_rate
from seqtrain.decoding.greedy import ctc_greedy
from seqtrain.decoding.lm import bigram_acceptor
from seqtrain.decoding.loops import lexicon_graph, phone_loop, word_loop
from seqtrain.decoding.splice import WordLoop
from seqtrain.decoding.symbols import SymbolTable
from seqtrain.decoding.words import DecodedWord, DecodedWords, decode_words, word_lattice

__all__ = [
    "Bigram",
    "DecodedWord",
    "DecodedWords",
    "EditCounts",
    "ErrorRate",
    "SymbolTable",
    "WordLoop",
    "bigram_acceptor",
    "count_edits",
    "ctc_greedy",
    "ctc_prefix_beam",
    "decode_words",
    "error_rate",
    "lexicon_graph",
    "phone_loop",
    "witten_bell",
    "word_lattice",
    "word_loop",
]
